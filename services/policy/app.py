"""The wiring of policy, top to bottom: settings, key, database, bus, ports, routes, background."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from fastapi import FastAPI
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from services.policy.api import changes, entities, exposure, instances, subjects
from services.policy.api.desk import Desk, Handout
from services.policy.catalog import CatalogReferences
from services.policy.instance_ca import load_instance_ca
from services.policy.ledger import PgLedger
from services.policy.settings import PolicySettings
from services.policy.signing import PolicyKey
from services.policy.subjects import Subjects
from services.policy.timing import Ticker, Windows
from shared import topics
from shared.administration import AdminGuard
from shared.bus.connection import KafkaSettings
from shared.config import AdminSettings, CommonSettings, Misconfigured, Mode
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.signing import SigningKey
from shared.database import engine_for, migrate, sessions_for
from shared.egress import guarded_session
from shared.errors import Unavailable
from shared.health import Check, Readiness
from shared.identity import JwksFetcher, TokenVerifier
from shared.outbox.commits import CommitLog
from shared.outbox.relay import Relay
from shared.projection.records import Authority
from shared.serving import Background, Lifespan, Work, application, serve
from shared.telemetry import configure
from shared.topics import Topic
from shared.tracing import Traced
from shared.wiring import admin_guard, kafka_settings, pinned_authority, topics_ready

TITLE: Final = "Keyfob policy"
SCHEMA: Final = "keyfob_policy"
SOURCE: Final = "keyfob/policy"
MIGRATIONS: Final = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is read from outside, read once."""

    common: CommonSettings = field(default_factory=CommonSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    admin: AdminSettings = field(default_factory=AdminSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One replica of policy, wired: its application starts and stops everything else."""

    app: FastAPI
    background: Background
    readiness: Readiness


def build(settings: Settings, session: aiohttp.ClientSession) -> Service:
    """Wire one replica. Nothing is connected before the application starts. `session` fetches issuers' keys."""
    common, policy = settings.common, settings.policy
    policy.check_origins(common.mode)
    key = _policy_key(settings)
    # Fetched for subjects only: administrators have an issuer of their own, in settings, so that a mistake in policy's
    # entries can't lock out whoever has to mend it.
    fetch = JwksFetcher(session, allow_http=common.mode is Mode.DEVELOPMENT)
    kafka = kafka_settings(common, client_id="keyfob-policy")
    engine = engine_for(policy.database(), schema=SCHEMA, pool=policy.database_pool)
    ledger = PgLedger(sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE), key)
    catalog = CatalogReferences(kafka, authority=pinned_authority(common.catalog_key, setting="KEYFOB_CATALOG_KEY"))
    relay = Relay(database=policy.database(), schema=SCHEMA, kafka=kafka, state_topic=topics.POLICY)
    # Only what this service writes is made by it: what it reads is another's to make, as replicated as that one wants.
    relaying = _relaying(kafka, relay, replication=common.kafka_replication)
    reading = AfterTopics(kafka=kafka, work=catalog.run, why_not=lambda: catalog.reason, read=_topics(topics.CATALOG))
    ticker = Ticker(ledger, policy.tick_every_s)
    desk = Desk(
        ledger=ledger,
        catalog=catalog,
        guard=admin_guard(settings.admin, session, mode=common.mode),
        subjects=Subjects(ledger, TokenVerifier(fetch_jwks=fetch)),
        handout=_handout(settings, key),
        instance_ca=load_instance_ca(
            policy.instance_ca_key_file,
            policy.instance_ca_file,
            lifetime=timedelta(days=policy.instance_certificate_days),
        ),
        allow_http=common.mode is Mode.DEVELOPMENT,
        allowed_variables=policy.allows(),
    )
    # Windows are not part of readiness: a late start or end shows in what a resolver decides by its own clock anyway.
    works: dict[str, Work] = {
        "relay": relaying.run,
        "catalog": reading.run,
        "ticks": ticker.run,
        "windows": Windows(ledger, policy.windows_every_s).run,
    }
    background = Background()
    readiness = Readiness({"relay": relaying.reason, "catalog": reading.reason, "ticks": ticker.reason})
    app = application(TITLE, lifespan=_lifespan(engine, background, works), readiness=readiness)
    app.add_middleware(Traced)
    add_routes(app, desk)
    return Service(app=app, background=background, readiness=readiness)


@dataclass(slots=True, kw_only=True)
class AfterTopics:
    """Work that starts once its topics are there: asking for a missing one would make some brokers invent it."""

    kafka: KafkaSettings
    work: Work
    why_not: Check
    made: tuple[Topic, ...] = ()
    replication: int = 1
    read: tuple[Topic, ...] = ()
    _waits_for: str | None = "not started"

    async def run(self) -> None:
        """Wait, then work for ever; cancel to stop."""
        await topics_ready(self.kafka, made=self.made, read=self.read, replication=self.replication, tell=self._tell)
        self._waits_for = None
        await self.work()

    def reason(self) -> str | None:
        """Why it doesn't work, if so."""
        return self._waits_for or self.why_not()

    def _tell(self, reason: str) -> None:
        self._waits_for = reason


def _lifespan(engine: AsyncEngine, background: Background, works: Mapping[str, Work]) -> Lifespan:
    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        # Before any work: the first thing that ticks do is read a table.
        await migrate(engine, scripts=MIGRATIONS, schema=SCHEMA)
        for name, work in works.items():
            background.start(name, work)
        try:
            yield
        finally:
            # Work first, connections last: what is cancelled has to give its own back.
            await background.stop()
            await engine.dispose()

    return run


def add_routes(app: FastAPI, desk: Desk) -> None:
    """All routes. Those with a fixed last part come first: a name may hold slashes."""
    for module in (changes, instances, subjects, exposure, entities):
        app.include_router(module.routes(desk))


def openapi() -> dict[str, Any]:
    """The published description of the HTTP API; connects nowhere."""
    key = PolicyKey(SigningKey.generate())
    engine = engine_for(make_url("postgresql+asyncpg://nowhere/"), schema=SCHEMA)
    ledger = PgLedger(sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE), key)
    verifier = TokenVerifier(fetch_jwks=_nowhere)
    desk = Desk(
        ledger=ledger,
        catalog=CatalogReferences(KafkaSettings(), authority=Authority({})),
        guard=AdminGuard(verifier, AdminSettings()),
        subjects=Subjects(ledger, verifier),
        handout=Handout(policy_key=key.public, resolver_keys=(), resolver_urls=(), broker="", notifier=None),
    )
    app = application(TITLE, lifespan=contextlib.nullcontext, readiness=Readiness())
    add_routes(app, desk)
    return app.openapi()


async def _nowhere(_: str) -> Mapping[str, Any]:
    raise Unavailable


def _relaying(kafka: KafkaSettings, relay: Relay, *, replication: int) -> AfterTopics:
    made = _topics(topics.POLICY, topics.POLICY_CHANGES)
    return AfterTopics(kafka=kafka, work=relay.run, why_not=lambda: relay.reason, made=made, replication=replication)


def _topics(*names: str) -> tuple[Topic, ...]:
    return tuple(topic for topic in topics.TOPICS if topic.name in names)


def _policy_key(settings: Settings) -> PolicyKey:
    """The key, which must be the one that everybody pins: else nobody would believe a record of ours."""
    try:
        key = PolicyKey(SigningKey.load(settings.policy.signing_key_file))
    except KeyFileRefused as error:
        raise Misconfigured(error.detail) from None
    if settings.common.policy_key and settings.common.policy_key != key.public:
        raise Misconfigured(
            f"KEYFOB_POLICY_SIGNING_KEY_FILE holds another key ({key.key.key_id}) than the one in KEYFOB_POLICY_KEY."
        )
    return key


def _handout(settings: Settings, key: PolicyKey) -> Handout:
    return Handout(
        policy_key=key.public,
        resolver_keys=settings.policy.pinned_resolver_keys(),
        resolver_urls=settings.policy.told_resolver_urls(),
        broker=settings.policy.gateway_kafka_bootstrap or settings.common.kafka_bootstrap,
        notifier=settings.policy.notifier_url or None,
        https_urls=settings.policy.told_https_urls(),
    )


async def main() -> int:
    """Serve policy until a signal; the process's exit code."""
    settings = Settings()
    configure("policy")
    async with guarded_session(mode=settings.common.mode) as session:
        service = build(settings, session)
        return await serve(service.app, mode=settings.common.mode, http=settings.policy, background=service.background)
