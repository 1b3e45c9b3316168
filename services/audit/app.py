"""The audit service's wiring, top to bottom; the only reader of its settings.

access, changes, alerts, receipts → trails → journal (database and outbox) → relay → audit
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from faststream.kafka import KafkaBroker
from sqlalchemy.ext.asyncio import AsyncEngine

from services.audit.api import routes
from services.audit.domain.ports import LOG, Signer
from services.audit.handlers import AccessTrail, ChangeTrail, ReceiptTrail
from services.audit.settings import AuditSettings
from services.audit.store import transactions
from services.audit.watching import EchoWatch
from shared import topics
from shared.administration import AdminGuard
from shared.bus.connection import KafkaSettings, connect
from shared.bus.effects import Consumption, consume_batches, effects_broker
from shared.bus.group_progress import GroupProgress
from shared.config import AdminSettings, CommonSettings, DatabaseSettings
from shared.database import engine_for, migrate, sessions_for
from shared.egress import guarded_session
from shared.health import Readiness
from shared.outbox.commits import CommitLog
from shared.outbox.relay import Relay
from shared.projection.directory import InstanceDirectory
from shared.projection.records import Authority
from shared.serving import Background, application, serve
from shared.telemetry import configure
from shared.topics import DEAD_LETTERS, TOPICS, Topic
from shared.wiring import admin_guard, kafka_settings, nobody_guard, pinned_authority, topics_ready, until_done

TITLE: Final = "Keyfob audit"
SCHEMA: Final = "keyfob_audit"
SOURCE: Final = "keyfob/audit"
GROUP: Final = "keyfob-audit"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
CONSUMED: Final = (topics.ACCESS, topics.VAULT_CHANGES, topics.POLICY_CHANGES, topics.RECEIPTS, topics.ALERTS)
READ: Final = (*CONSUMED, topics.POLICY)


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

    def signer_of(self, instance_id: str) -> Signer | None:
        """The instance that may sign under this id, if policy really enrolled it."""
        known = self.directory.snapshot.get(instance_id)
        key = known.key(self.authority) if known is not None else None
        return None if known is None or key is None else Signer(known.name, key)

    async def caught_up(self) -> None:
        """Return once everything that policy had said at the call is known."""
        await self.directory.caught_up()


@dataclass(slots=True)
class Audit:
    """One replica, put together but not started."""

    kafka: KafkaSettings
    engine: AsyncEngine
    replication: int
    broker: KafkaBroker
    consumptions: tuple[Consumption, ...]
    directory: InstanceDirectory
    relay: Relay
    echoes: EchoWatch
    background: Background
    readiness: Readiness = field(default_factory=Readiness)
    _waiting: str | None = "starting"

    def watch(self) -> None:
        """Let everything that must work have its say in readiness."""
        self.readiness.add("start", lambda: self._waiting)
        self.readiness.add("relay", lambda: self.relay.reason)
        self.readiness.add("policy", lambda: self.directory.reason)
        for consumption in self.consumptions:
            self.readiness.add(consumption.topic, lambda one=consumption: one.reason)  # type: ignore[misc]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The lifespan: what is away is waited for in the background, so that readiness can tell the reason."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            stack.push_async_callback(self.broker.stop)
            stack.push_async_callback(self.background.stop)
            self.background.start("start", self._start)
            yield

    async def _start(self) -> None:
        await until_done(self._migrate, what="database", tell=self._tell)
        made = _named(topics.AUDIT, *(topics.dead(name) for name in CONSUMED))
        await topics_ready(self.kafka, made=made, read=_named(*READ), replication=self.replication, tell=self._tell)
        self.background.start("policy", self.directory.run)
        self.background.start("relay", self.relay.run)
        # Receipts are judged by instances: those that policy has must be known before the first one is read.
        await until_done(self.directory.caught_up, what="policy", tell=self._tell)
        await connect(self.broker, what="events")
        self.background.start("echoes", self.echoes.run)
        for consumption in self.consumptions:
            self.background.start(f"watch {consumption.topic}", consumption.watch)
        self._waiting = None

    async def _migrate(self) -> None:
        await migrate(self.engine, scripts=MIGRATIONS, schema=SCHEMA)

    def _tell(self, reason: str) -> None:
        self._waiting = reason


def build(
    common: CommonSettings, settings: AuditSettings, guard: AdminGuard, background: Background
) -> tuple[FastAPI, Audit]:
    """Put one replica together; nothing connects before the application's lifespan begins."""
    kafka = kafka_settings(common, client_id="keyfob-audit")
    engine = engine_for(settings.database(), schema=SCHEMA, pool=settings.database_pool)
    begin = transactions(sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE, state=False))
    directory = InstanceDirectory(kafka)
    authority = pinned_authority(common.policy_key, setting="KEYFOB_POLICY_KEY")
    relay = Relay(database=settings.database(), schema=SCHEMA, kafka=kafka, state_topic=topics.AUDIT, log_key=LOG)

    broker = effects_broker(kafka)
    accesses, changes = AccessTrail(begin, now), ChangeTrail(begin)
    receipts = ReceiptTrail(begin, Signers(directory, authority), now)
    handlers = {
        topics.ACCESS: accesses.on_access,
        topics.VAULT_CHANGES: changes.on_vault_changes,
        topics.POLICY_CHANGES: changes.on_policy_changes,
        topics.RECEIPTS: receipts.on_receipts,
        topics.ALERTS: changes.on_alerts,
    }
    # A group for each topic: members of one group wait for each other whenever one of them starts.
    consumptions = tuple(
        consume_batches(broker, topic=topic, group=group_of(topic), handler=handler, max_messages=settings.batch)
        for topic, handler in handlers.items()
    )
    progress = GroupProgress(kafka, topic=topics.ACCESS, group=group_of(topics.ACCESS))
    audit = Audit(
        kafka=kafka,
        engine=engine,
        replication=common.kafka_replication,
        broker=broker,
        consumptions=consumptions,
        directory=directory,
        relay=relay,
        echoes=EchoWatch(begin, progress, now, settings.echoes_every_s),
        background=background,
    )
    audit.watch()
    app = application(TITLE, lifespan=audit.running, readiness=audit.readiness)
    app.include_router(routes(begin, now, guard))
    return app, audit


def _named(*names: str) -> list[Topic]:
    table = {topic.name: topic for topic in (*TOPICS, *DEAD_LETTERS)}
    return [table[name] for name in names]


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
