"""The audit service's wiring, top to bottom; the only reader of its settings.

access, changes, alerts, receipts → trails → journal (database and outbox) → relay → audit
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI

from services.audit.api import routes
from services.audit.domain.ports import LOG, Signer, Transaction
from services.audit.handlers import AccessTrail, ChangeTrail, ReceiptTrail
from services.audit.settings import AuditSettings
from services.audit.store import transactions
from services.audit.watching import EchoWatch
from shared import topics
from shared.administration import AdminGuard
from shared.bus.effects import Consumption, EffectsBroker, consume_batches, effects_broker
from shared.bus.group_progress import GroupProgress
from shared.config import AdminSettings, CommonSettings, DatabaseSettings
from shared.database import engine_for, sessions_for
from shared.delivery.receipts import Resolvers
from shared.egress import guarded_session
from shared.health import Readiness
from shared.outbox.commits import CommitLog
from shared.outbox.relay import Relay
from shared.projection.directory import InstanceDirectory
from shared.projection.records import Authority
from shared.replica import Replica
from shared.serving import Background, application, serve
from shared.telemetry import configure
from shared.wiring import (
    Tell,
    admin_guard,
    kafka_settings,
    nobody_guard,
    pinned_authority,
    pinned_resolvers,
    until_done,
)

TITLE: Final = "Keyfob audit"
SCHEMA: Final = "keyfob_audit"
SOURCE: Final = "keyfob/audit"
GROUP: Final = "keyfob-audit"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
CONSUMED: Final = (
    topics.ACCESS,
    topics.VAULT_CHANGES,
    topics.POLICY_CHANGES,
    topics.CUSTODY_CHANGES,
    topics.RECEIPTS,
    topics.ALERTS,
)
READ: Final = (*CONSUMED, topics.POLICY)
RECEIPTS_GATHER_MS: Final = 250


def group_of(topic: str) -> str:
    """The consumer group of one topic."""
    return f"{GROUP}-{topic}"


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Signers:
    """The port `Instances` on the directory of enrolled instances."""

    directory: InstanceDirectory
    authority: Authority
    resolvers: Resolvers

    def signer_of(self, instance_id: str) -> Signer | None:
        """The instance that may sign under this id, if policy really enrolled it."""
        known = self.directory.snapshot.get(instance_id)
        voucher = known.voucher(self.authority, self.resolvers) if known is not None else None
        return None if known is None or voucher is None else Signer(known.name, voucher)

    async def caught_up(self) -> None:
        """Return once everything that policy had said at the call is known."""
        await self.directory.caught_up()


def build(
    common: CommonSettings, settings: AuditSettings, guard: AdminGuard, background: Background
) -> tuple[FastAPI, Replica]:
    """Put one replica together; nothing connects before the application's lifespan begins."""
    kafka = kafka_settings(common, client_id="keyfob-audit")
    engine = engine_for(settings.database(), schema=SCHEMA, pool=settings.database_pool)
    begin = transactions(sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE, state=False))
    # Without alarms of its own: the notifier reads the same records and tells people once.
    directory = InstanceDirectory(kafka)
    authority = pinned_authority(common.policy_key, setting="KEYFOB_POLICY_KEY")
    signers = Signers(directory, authority, pinned_resolvers(common.resolver_keys))
    # A key for all: one log is one partition, and so one order.
    relay = Relay(database=settings.database(), schema=SCHEMA, kafka=kafka, state_topic=topics.AUDIT, log_key=LOG)

    broker = effects_broker(kafka)
    consumptions = _consumptions(broker, begin, signers, max_messages=settings.batch)
    progress = GroupProgress(kafka, topic=topics.ACCESS, group=group_of(topics.ACCESS))
    echoes = EchoWatch(begin, progress, now, settings.echoes_every_s)

    async def prepare(tell: Tell) -> None:
        background.start("policy", directory.run)
        background.start("relay", relay.run)
        # Receipts are judged by instances: those that policy has must be known before the first one is read.
        await until_done(directory.caught_up, what="policy", tell=tell)
        background.start("echoes", echoes.run)

    replica = Replica(
        kafka=kafka,
        replication=common.kafka_replication,
        engine=engine,
        schema=SCHEMA,
        migrations=MIGRATIONS,
        made=(topics.AUDIT, *map(topics.dead, CONSUMED)),
        read=READ,
        broker=broker,
        consumptions=consumptions,
        background=background,
        prepare=prepare,
    )
    replica.readiness.add("relay", lambda: relay.reason)
    replica.readiness.add("policy", lambda: directory.reason)
    app = application(TITLE, lifespan=replica.running, readiness=replica.readiness)
    app.include_router(routes(begin, now, guard))
    return app, replica


def _consumptions(
    broker: EffectsBroker, begin: Transaction, instances: Signers, *, max_messages: int
) -> tuple[Consumption, ...]:
    """What is consumed. A group for each topic: members of one group wait for each other whenever one starts."""
    accesses, changes, receipts = AccessTrail(begin, now), ChangeTrail(begin), ReceiptTrail(begin, instances, now)
    handlers = {
        topics.ACCESS: accesses.on_access,
        topics.VAULT_CHANGES: changes.on_vault_changes,
        topics.POLICY_CHANGES: changes.on_policy_changes,
        topics.CUSTODY_CHANGES: changes.on_custody_changes,
        topics.RECEIPTS: receipts.on_receipts,
        topics.ALERTS: changes.on_alerts,
    }
    return tuple(
        consume_batches(
            broker,
            topic=topic,
            group=group_of(topic),
            handler=handler,
            max_messages=max_messages,
            # Every instance answers every notice, within moments: fetched one by one, their proofs would cost the
            # broker and us more than the change that they are about. What audit keeps of them, nobody waits for.
            gather_ms=RECEIPTS_GATHER_MS if topic == topics.RECEIPTS else None,
        )
        for topic, handler in handlers.items()
    )


async def main() -> int:
    """Run one replica until a signal."""
    configure("audit")
    common, settings, admin = CommonSettings(), AuditSettings(), AdminSettings()
    background = Background()
    async with guarded_session(mode=common.mode, timeout_s=5.0, connections=4, ca_file=None) as session:
        guard = admin_guard(admin, session, mode=common.mode)
        app, _ = build(common, settings, guard, background)
        return await serve(app, mode=common.mode, http=settings, background=background)


def openapi() -> dict[str, Any]:
    """The API's description, without connecting anywhere."""
    sessions = sessions_for(engine_for(DatabaseSettings().database(), schema=SCHEMA))
    begin = transactions(sessions, CommitLog(schema=SCHEMA, source=SOURCE, state=False))
    app = application(TITLE, lifespan=nullcontext, readiness=Readiness())
    app.include_router(routes(begin, now, nobody_guard()))
    return app.openapi()
