"""A notifier in this process on a real database and a broker of its own: topics belong to one history."""

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
import pytest_asyncio

from services.dev.platform import Platform
from services.dev.platform.broker import broker_from_env
from services.dev.platform.issuing import DevIssuer
from services.notifier.app import SCHEMA, Notifier, build
from services.notifier.settings import NotifierSettings
from shared import topics
from shared.administration import AdminGuard
from shared.bus.connection import KafkaSettings, connect, disconnect, ensure_topics
from shared.config import AdminSettings, CommonSettings, Mode
from shared.events.catalog import ReferenceState
from shared.events.changes import Actor, Detection, PolicyAction, PolicyChange, VaultChange, VaultChangeKind
from shared.identity import TokenVerifier, TrustedIssuer
from shared.serving import Background
from tests.fakes.authorities import Bus, FakePolicy, now
from tests.waiting import until

TIGHT = {"gateway_bound_s": 3.0, "resolver_bound_s": 1.5, "clock_allowance_s": 0.0, "settle_every_s": 0.02}
"""Bounds that a test can wait for."""


@dataclass(slots=True)
class Running:
    """One replica at work."""

    notifier: Notifier
    http: httpx2.AsyncClient

    async def get(self, path: str, *, expect: int = 200, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == expect, (answer.status_code, answer.text)
        return answer.json()

    async def convergence(self, event_id: str, *, wait_s: float = 10.0) -> Any:
        return await self.get("/v1/convergence", event_id=event_id, wait_s=wait_s)

    async def noted(self, event_id: str) -> Any:
        """The notice about an event, as soon as it is noted, converged or not."""
        return await until(lambda: self.convergence(event_id, wait_s=0), within=10)


@dataclass(slots=True)
class Stage:
    """The broker, the database and whoever else speaks on the bus."""

    bus: Bus
    policy: FakePolicy
    common: CommonSettings
    dsn: str = field(repr=False)
    issuer: DevIssuer

    @property
    def kafka(self) -> KafkaSettings:
        return self.bus.kafka

    def token(self, *groups: str) -> str:
        return self.issuer.token("ada", groups)

    @asynccontextmanager
    async def notifier(self, **settings: Any) -> AsyncIterator[Running]:
        """A replica that is ready."""
        own = NotifierSettings(
            **{
                "database_url": self.dsn.replace("postgresql://", "postgresql+asyncpg://"),
                "database_pool": 5,
                **TIGHT,
                **settings,
            }
        )
        guard = AdminGuard(self._verifier(), AdminSettings())
        app, notifier = build(self.common, own, guard, Background())
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {self.token('keyfob-auditors')}"}
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://notifier", headers=headers, timeout=60) as http,
        ):
            await until(lambda: not notifier.readiness.reasons(), within=30)
            yield Running(notifier, http)

    def _verifier(self) -> TokenVerifier:
        async def fetch(_: str) -> dict[str, Any]:
            return self.issuer.jwks()

        issuer = TrustedIssuer(
            idp_id="idp/administrators", issuer=self.issuer.url, jwks_uri="https://issuer/jwks", audience="keyfob"
        )
        return TokenVerifier(fetch_jwks=fetch, issuers=[issuer])

    async def rotate(
        self, *, seq: int = 1, reference: str = "reference/1", state: str = "active", traceparent: str | None = None
    ) -> VaultChange:
        """A rotation, as sync tells of it."""
        change = VaultChange(
            id=f"change/{secrets.token_hex(8)}",
            seq=seq,
            kind=VaultChangeKind.ROTATED,
            reference_id=reference,
            reference_name="hospital-a/db-url",
            source_id="source/1",
            version="2",
            previous_version="1",
            state=ReferenceState(state),
            detected_by=Detection.FEED,
            changed_at=now(),
            detected_at=now(),
        )
        await self.bus.send(change, key=change.reference_id, traceparent=traceparent)
        return change

    async def change_policy(self, *ended: str, seq: int, kind: str = "grant") -> PolicyChange:
        """A change that ended these, as policy tells of it."""
        change = PolicyChange(
            id=f"change/{secrets.token_hex(8)}",
            seq=seq,
            action=PolicyAction.DELETED,
            entity_kind=kind,
            entity_id=ended[0] if ended else "profile/1",
            ended=ended,
            actor=Actor(idp="idp/1", subject="ada"),
            at=now(),
        )
        await self.bus.send(change, key=change.entity_id)
        return change

    async def offset_of(self, notice_id: str) -> int:
        """Where a notice stands first."""
        return min(one.offset for one in await self.bus.all_of(topics.NOTICES) if one.event_id == notice_id)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(platform: Platform) -> AsyncIterator[Stage]:
    """Topics and a schema of this test's own; no notifier runs yet."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-notifier-"))
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
        yield Stage(bus, policy, common, await _database(platform), issuer)


async def _database(platform: Platform) -> str:
    name = f"notifier_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    return platform.postgres.dsn(name, name)
