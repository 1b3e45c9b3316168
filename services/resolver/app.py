"""The wiring of one resolver replica, top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from services.resolver.api import ResolveRoute, declare
from services.resolver.callers import Instances, Subjects
from services.resolver.case import Call
from services.resolver.reads import Reads
from services.resolver.receipts import Receipts
from services.resolver.records import AccessRecorder
from services.resolver.resolution import Resolver
from services.resolver.settings import ResolverSettings
from services.resolver.sources.credentials import Credentials
from services.resolver.sources.kv2 import Kv2Reader
from services.resolver.state import ProjectedKnowledge, projected
from services.resolver.trust import pinned
from shared.config import CommonSettings, Misconfigured, Mode
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.secret import disable_core_dumps
from shared.crypto.signing import SigningKey
from shared.egress import Egress, guarded_session
from shared.health import Readiness
from shared.identity import JwksFetcher, TokenVerifier
from shared.serving import Background, Lifespan, application, serve
from shared.telemetry import configure
from shared.wiring import kafka_settings

NAME = "resolver"


@dataclass(frozen=True, slots=True)
class Replica:
    """A running replica: its application, its background work, and what tests look at."""

    app: ASGIApp
    background: Background
    knowledge: ProjectedKnowledge
    resolver: Resolver
    recorder: AccessRecorder
    lifespan: Lifespan


async def main() -> int:
    """Run a replica until a signal; the process's exit code."""
    disable_core_dumps()
    configure(NAME)
    common, settings = CommonSettings(), ResolverSettings()
    async with replica(common, settings) as running:
        return await serve(running.app, mode=common.mode, http=settings, background=running.background)


@contextlib.asynccontextmanager
async def replica(common: CommonSettings, settings: ResolverSettings) -> AsyncIterator[Replica]:
    """Everything of a replica, connected to nothing before its application starts."""
    kafka = kafka_settings(common, client_id=f"keyfob-{NAME}")
    trust = pinned(policy_key=common.policy_key, catalog_key=common.catalog_key)
    signing_key = _signing_key(settings)
    async with contextlib.AsyncExitStack() as stack:
        web = await stack.enter_async_context(guarded_session(mode=common.mode))
        egress = await stack.enter_async_context(
            Egress(
                mode=common.mode,
                timeout_s=settings.read_deadline_s,
                connections=settings.source_connections,
                ca_file=settings.source_ca_file,
            )
        )
        knowledge = projected(kafka, trust, tick_bound_s=settings.tick_bound_s)
        recorder = AccessRecorder(
            kafka.producer, replica_id=settings.replica_id, record_deadline_s=settings.record_deadline_s
        )
        resolver = Resolver(
            knowledge=knowledge,
            trust=trust,
            instances=Instances(trust),
            subjects=Subjects(
                TokenVerifier(
                    fetch_jwks=JwksFetcher(web, allow_http=common.mode is Mode.DEVELOPMENT),
                    remember=settings.memory_tokens,
                ),
                trust,
            ),
            log=recorder,
            reads=Reads(
                {"kv2": Kv2Reader(egress, Credentials(settings.credentials_dir, common.mode), common.mode)},
                deadline_s=settings.read_deadline_s,
            ),
            signing_key=signing_key,
            floor_wait_s=settings.floor_wait_s,
            lease_ttl_s=settings.lease_ttl_s,
        )
        receipts = Receipts(
            knowledge=knowledge,
            producer=kafka.producer(),
            replica_id=settings.replica_id,
            heartbeat_s=settings.heartbeat_s,
            pause_s=settings.receipt_pause_s,
        )
        background = Background()
        readiness = Readiness()
        readiness.add("state", knowledge.not_ready)
        readiness.add("records", lambda: recorder.trouble)

        @contextlib.asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            background.start("projections", knowledge.follow)
            background.start("records", recorder.run)
            background.start("receipts", receipts.run)
            try:
                yield
            finally:
                await recorder.flush()
                await background.stop()

        rest = application("Keyfob resolver", lifespan=lifespan, readiness=readiness)
        audience = settings.audience or _own_origin(settings)
        declare(rest, resolver.resolve, audience)
        route = ResolveRoute(resolver.resolve, audience, rest)
        yield Replica(route, background, knowledge, resolver, recorder, lifespan)


def _signing_key(settings: ResolverSettings) -> SigningKey:
    try:
        return SigningKey.load(settings.signing_key_file)
    except KeyFileRefused as error:
        raise Misconfigured(f"KEYFOB_RESOLVER_SIGNING_KEY_FILE: {error.detail}") from None


def _own_origin(settings: ResolverSettings) -> str:
    """Where gateways reach this replica, as far as it knows itself."""
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://{settings.host}:{settings.port}"


def openapi() -> dict[str, Any]:
    """The service's OpenAPI, without connecting anywhere."""

    async def never(_: Call) -> bytes:
        raise Misconfigured("This application only describes itself.")

    app = FastAPI(title="Keyfob resolver", version="1")
    declare(app, never, "")
    return app.openapi()
