"""The wiring of one resolver replica, top to bottom: settings, keys, ways out, bus, decision, routes, background."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import APIRouter
from starlette.types import ASGIApp

from services.resolver.api import ResolveRoute, declare
from services.resolver.callers import Instances, Subjects
from services.resolver.case import Call
from services.resolver.custody.key_routes import key_routes
from services.resolver.custody.value_desk import ValueDesk
from services.resolver.custody.value_routes import value_routes
from services.resolver.custody.wiring import Custody, custody_of
from services.resolver.decisions import Decisions
from services.resolver.explaining import Explainer, routes
from services.resolver.https_only.wiring import HttpsOnly, described, https_only_of
from services.resolver.reads import Reads
from services.resolver.receipts import Receipts
from services.resolver.records import AccessRecorder
from services.resolver.refusals import RefusalBudget
from services.resolver.resolution import Resolver
from services.resolver.settings import ResolverSettings
from services.resolver.sources.credentials import Credentials
from services.resolver.sources.kv2 import Kv2Reader
from services.resolver.sources.local import NothingKept
from services.resolver.state import ProjectedKnowledge, projected
from services.resolver.trust import Trust, pinned
from shared import topics
from shared.bus.connection import KafkaSettings
from shared.config import AdminSettings, CommonSettings, Misconfigured, Mode
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.signing import SigningKey
from shared.egress import Egress, guarded_session
from shared.health import Readiness
from shared.identity import JwksFetcher, TokenVerifier
from shared.origins import checked_origins
from shared.serving import Background, Lifespan, application, serve
from shared.telemetry import configure
from shared.wiring import admin_guard, kafka_settings, nobody_guard, topics_ready

NAME: Final = "resolver"
TITLE: Final = "Keyfob resolver"
WRITTEN: Final = tuple(
    # Also the topic of custody, which readers wait for, where nothing is kept.
    topic
    for topic in topics.TOPICS
    if topic.name in {topics.ACCESS, topics.RECEIPTS, topics.CUSTODY_CHANGES}
)
READ: Final = tuple(topic for topic in topics.TOPICS if topic.name in {topics.POLICY, topics.CATALOG})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is read from outside, read once."""

    common: CommonSettings = field(default_factory=CommonSettings)
    resolver: ResolverSettings = field(default_factory=ResolverSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)

    @property
    def audience(self) -> str:
        """The origin that assertions must name."""
        own = self.resolver
        scheme = "http" if own.tls_certificate is None else "https"
        return own.audience or f"{scheme}://{own.host}:{own.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """Everything of a replica that lives on Kafka."""

    kafka: KafkaSettings
    knowledge: ProjectedKnowledge
    recorder: AccessRecorder
    receipts: Receipts
    replication: int
    waiting: deque[str] = field(default_factory=lambda: deque(["not started"], maxlen=1))

    async def run(self) -> None:
        """Wait for the topics, then follow state, record accesses and send receipts until cancelled."""
        await topics_ready(self.kafka, made=WRITTEN, read=READ, replication=self.replication, tell=self.waiting.append)
        self.waiting.clear()
        async with asyncio.TaskGroup() as group:
            for part in (self.knowledge.follow, self.recorder.run, self.receipts.run):
                group.create_task(part())

    def not_ready(self) -> str | None:
        """Why this replica can't answer now."""
        return self.waiting[0] if self.waiting else self.knowledge.not_ready() or self.recorder.trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica, wired; `lifespan` starts and stops what works in the background."""

    app: ASGIApp
    background: Background
    bus: Bus
    resolver: Resolver
    lifespan: Lifespan
    https_only: HttpsOnly | None = None

    @property
    def knowledge(self) -> ProjectedKnowledge:
        """What it knows."""
        return self.bus.knowledge


async def main() -> int:
    """Run a replica until a signal; the process's exit code."""
    configure(NAME)
    settings = Settings()
    async with replica(settings) as running:
        http, mode = settings.resolver, settings.common.mode
        return await serve(running.app, mode=mode, http=http, background=running.background)


@contextlib.asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    """Everything of a replica. Only its keys are looked at; nothing else is connected before its application starts."""
    common, own = settings.common, settings.resolver
    checked_origins(own.audience, mode=common.mode, setting="KEYFOB_RESOLVER_AUDIENCE")
    trust = pinned(policy_key=common.policy_key, catalog_key=common.catalog_key)
    signing_key = _signing_key(own)
    bus = _bus(common, own, trust)
    async with guarded_session(mode=common.mode) as web, _egress(common, own) as egress:
        fetch = JwksFetcher(web, allow_http=common.mode is Mode.DEVELOPMENT)
        kv2 = Kv2Reader(egress, Credentials(own.credentials_dir, common.mode), common.mode)
        subjects = Subjects(TokenVerifier(fetch_jwks=fetch, remember=own.memory_tokens), trust)
        kept = custody_of(own, egress, bus.kafka, mode=common.mode)
        resolver = Resolver(
            knowledge=bus.knowledge,
            decisions=Decisions(trust),
            instances=Instances(trust),
            subjects=subjects,
            log=bus.recorder,
            budget=RefusalBudget(bus.recorder),
            reads=Reads({"kv2": kv2}),
            local=NothingKept() if kept is None else kept.reader,
            signing_key=signing_key,
            floor_wait_s=own.floor_wait_s,
            lease_ttl_s=own.lease_ttl_s,
        )
        guard = admin_guard(settings.admin, web, mode=common.mode)
        routers = (
            routes(Explainer(bus.knowledge, trust), guard),
            key_routes(None if kept is None else kept.desk, guard),
            value_routes(None if kept is None else ValueDesk(kept.values, bus.knowledge, subjects, trust), guard),
        )
        # Before anything is answered: keys that don't fit end the start.
        async with contextlib.nullcontext() if kept is None else kept.opened():
            yield _served(resolver, bus, kept, routers, settings)


def _served(
    resolver: Resolver, bus: Bus, kept: Custody | None, routers: Iterable[APIRouter], settings: Settings
) -> Replica:
    background, readiness, audience = Background(), Readiness(), settings.audience
    # Nothing of custody: a load balancer would take references away for the sake of local values.
    readiness.add("bus", bus.not_ready)
    tls, policy_key = settings.resolver.mutual_tls(), settings.common.policy_key
    plain = https_only_of(tls, resolver, bus.kafka, bus.not_ready, policy_key=policy_key)

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        background.start("bus", bus.run)
        if kept is not None:
            kept.begin(background)
        if plain is not None:
            plain.begin(background)
        try:
            yield
        finally:
            if plain is not None:
                await plain.end()
            # Nothing is answered any more: what was said about answers must still arrive.
            resolver.budget.close()
            await bus.recorder.flush()
            await background.stop()

    rest = application(TITLE, lifespan=lifespan, readiness=readiness)
    declare(rest, resolver.resolve, audience)
    for router in routers:
        rest.include_router(router)
    route = ResolveRoute(resolver.resolve, audience, rest)
    return Replica(app=route, background=background, bus=bus, resolver=resolver, lifespan=lifespan, https_only=plain)


def _bus(common: CommonSettings, own: ResolverSettings, trust: Trust) -> Bus:
    kafka = kafka_settings(common, client_id=f"keyfob-{own.replica_id}")
    knowledge = projected(kafka, trust, tick_bound_s=own.tick_bound_s)
    return Bus(
        kafka=kafka,
        knowledge=knowledge,
        # Idempotent, since order and numbers of a stream rest on it; a receipt that comes twice changes nothing.
        recorder=AccessRecorder(kafka.producer, replica_id=own.replica_id, record_deadline_s=own.record_deadline_s),
        receipts=Receipts(
            knowledge=knowledge,
            new_producer=kafka.repeating_producer,
            replica_id=own.replica_id,
            heartbeat_s=own.heartbeat_s,
            pause_s=own.receipt_pause_s,
        ),
        replication=common.kafka_replication,
    )


def _egress(common: CommonSettings, own: ResolverSettings) -> Egress:
    return Egress(
        mode=common.mode,
        timeout_s=own.read_deadline_s,
        connections=own.source_connections,
        ca_file=own.source_ca_file,
    )


def _signing_key(own: ResolverSettings) -> SigningKey:
    try:
        return SigningKey.load(own.signing_key_file)
    except KeyFileRefused as error:
        raise Misconfigured(f"KEYFOB_RESOLVER_SIGNING_KEY_FILE: {error.detail}") from None


def openapi() -> dict[str, Any]:
    """The published description of the HTTP API; connects nowhere."""

    async def never(_: Call) -> bytes:
        raise Misconfigured("This application only describes itself.")

    app = application(TITLE, lifespan=contextlib.nullcontext, readiness=Readiness())
    declare(app, never, "")
    nobody = nobody_guard()
    for router in (routes(_explains_nothing(), nobody), key_routes(None, nobody), value_routes(None, nobody)):
        app.include_router(router)
    return app.openapi()


def https_only_openapi() -> dict[str, Any]:
    """The same of the second listener."""
    return described()


def _explains_nothing() -> Explainer:
    common = CommonSettings(kafka_bootstrap="127.0.0.1:1")
    nobody = Trust({})
    knowledge = projected(kafka_settings(common, client_id="describing"), nobody, tick_bound_s=0.0)
    return Explainer(knowledge, nobody)
