"""What a service in a test's own process stands on: topics, a schema and an issuer that are all its own."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from services.dev.platform import Platform
from services.dev.platform.broker import broker_from_env
from services.dev.platform.issuing import DevIssuer
from shared import topics
from shared.administration import AdminGuard
from shared.bus.connection import KafkaSettings, connect, disconnect, ensure_topics
from shared.config import AdminSettings, CommonSettings, Mode
from shared.health import Readiness
from shared.identity import TokenVerifier, TrustedIssuer
from tests.fakes.authorities import Bus, FakePolicy
from tests.waiting import until


@dataclass(slots=True)
class Ground:
    """The broker, the database, policy, and who may administer."""

    bus: Bus
    policy: FakePolicy
    common: CommonSettings
    dsn: str = field(repr=False)
    issuer: DevIssuer

    @property
    def kafka(self) -> KafkaSettings:
        return self.bus.kafka

    @property
    def database_url(self) -> str:
        return self.dsn.replace("postgresql://", "postgresql+asyncpg://")

    def token(self, *groups: str) -> str:
        return self.issuer.token("ada", groups)

    def guard(self) -> AdminGuard:
        async def fetch(_: str) -> dict[str, Any]:
            return self.issuer.jwks()

        issuer = TrustedIssuer(
            idp_id="idp/administrators",
            issuer=self.issuer.url,
            jwks_uri="https://issuer/jwks",
            audience="keyfob",
            algorithms=frozenset({"ES256"}),
        )
        return AdminGuard(TokenVerifier(fetch_jwks=fetch, issuers=[issuer]), AdminSettings())

    @asynccontextmanager
    async def serving(self, app: FastAPI, readiness: Readiness) -> AsyncIterator[httpx2.AsyncClient]:
        """An auditor's client of a service that is ready."""
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {self.token('keyfob-auditors')}"}
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://service", headers=headers, timeout=60) as http,
        ):
            await until(lambda: not readiness.reasons(), within=30)
            yield http


@asynccontextmanager
async def ground(platform: Platform, *, schema: str) -> AsyncIterator[Ground]:
    """A broker of its own with all topics, and an empty schema; policy has ticked once."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-stage-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        broker = broker_from_env(directory)
        await broker.start()
        stack.push_async_callback(broker.stop)
        kafka = KafkaSettings(bootstrap=broker.bootstrap, client_id="test")
        await ensure_topics(kafka, topics.TOPICS, replication=1)
        producer = kafka.producer()
        await connect(producer, what="test")
        stack.push_async_callback(disconnect, producer)
        bus = Bus(kafka, producer)
        policy = FakePolicy(bus)
        common = CommonSettings(
            mode=Mode.DEVELOPMENT,
            kafka_bootstrap=broker.bootstrap,
            kafka_replication=1,
            policy_key=policy.key.verify_key.to_base64(),
        )
        issuer = DevIssuer(directory / "issuer", url="https://issuer")
        await policy.tick()
        yield Ground(bus, policy, common, await _database(platform, schema), issuer)


async def _database(platform: Platform, schema: str) -> str:
    name = f"stage_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {name}", database=name)
    return platform.postgres.dsn(name, name)
