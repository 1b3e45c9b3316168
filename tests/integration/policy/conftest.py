"""A whole policy service in this process, on a real database and a broker of its own: topics belong to one history."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from services.dev.platform import Platform
from services.dev.platform.broker import broker_from_env
from services.dev.platform.issuing import DevIssuer
from services.policy.app import SCHEMA, SOURCE, Service, Settings, build
from services.policy.ledger import PgLedger
from services.policy.settings import PolicySettings
from services.policy.signing import PolicyKey
from shared import topics
from shared.bus.cloudevents import Message, encode
from shared.bus.connection import KafkaSettings, connect, disconnect, ensure_topics, publish
from shared.bus.signatures import record_signer, to_header
from shared.bus.whole_topic import Batch, FromBeginning, WholeTopicReader
from shared.config import AdminSettings, CommonSettings, Mode
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.database import engine_for, sessions_for
from shared.delivery.enrolment import certify_sealing_key
from shared.delivery.messages import EnrolRequest
from shared.egress import guarded_session
from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.outbox.commits import CommitLog
from tests.waiting import until

RESOLVER_KEY = SigningKey.generate().verify_key.to_base64()


@dataclass(slots=True)
class FakeSync:
    """Publishes references to the `catalog` topic, signed as sync does."""

    kafka: KafkaSettings
    key: SigningKey
    _seq: Iterator[int] = field(default_factory=lambda: count(1))

    async def publish(self, *names: str, state: ReferenceState = ReferenceState.ACTIVE) -> list[ReferenceRecord]:
        """Publish one commit for each name; the ids are new each time."""
        records = [self._record(name, state) for name in names]
        await self.send(*records)
        return records

    async def send(self, *records: ReferenceRecord) -> None:
        producer = self.kafka.producer()
        await connect(producer, what="fake sync")
        try:
            for record in records:
                await publish(producer, self._message(record), deadline_s=5)
        finally:
            await disconnect(producer)

    def next_seq(self) -> int:
        return next(self._seq)

    def _record(self, name: str, state: ReferenceState) -> ReferenceRecord:
        return ReferenceRecord(
            id=f"reference/{secrets.token_hex(16)}",
            seq=self.next_seq(),
            revision=1,
            name=name,
            source_id="source/1",
            path=name,
            version="1",
            state=state,
            changed_at=datetime.now(UTC),
        )

    def _message(self, record: ReferenceRecord) -> Message:
        payload = record.to_json()
        sign = record_signer(self.key)
        key_id, signature = sign(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        extensions = {"commitseq": str(record.seq), "commitpart": "1/1", "keyid": key_id}
        return encode(
            record,
            key=record.id,
            source="keyfob/sync",
            event_id=secrets.token_hex(8),
            extensions={**extensions, "signature": to_header(signature)},
            payload=payload,
        )


@dataclass(slots=True)
class Instance:
    """A gateway's keys and the request to be let in."""

    name: str
    signing: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)

    def request(self, token: str, **other: Any) -> dict[str, Any]:
        asked = EnrolRequest(
            token=SecretStr(token),
            name=self.name,
            signing_key=self.signing.verify_key.to_base64(),
            sealing_key=self.sealing.public.to_base64(),
            sealing_key_signature=certify_sealing_key(self.signing, self.sealing.public),
        )
        return asked.model_dump() | {"token": token} | other


@dataclass(slots=True)
class PolicyUnderTest:
    """The running service, and what tests ask of it."""

    service: Service
    settings: Settings
    kafka: KafkaSettings
    issuer: DevIssuer
    sync: FakeSync
    key: SigningKey
    http: httpx2.AsyncClient
    dsn: str = field(repr=False)

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, expect: int | None = None
    ) -> Any:
        """The JSON answer; a call by an admin unless a token is given. `expect` is the status that must come."""
        bearer = self.admin_token() if token is None else token
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        answer = await self.http.request(method, path, json=body, headers=headers)
        wanted = {expect} if expect else {200, 201}
        assert answer.status_code in wanted, (answer.status_code, answer.text)
        return answer.json()

    def admin_token(self) -> str:
        return self.issuer.token("ada", ["keyfob-admins"])

    def token(self, subject: str, *groups: str) -> str:
        return self.issuer.token(subject, groups)

    async def messages(self, topic: str, *, through_seq: int = 0) -> list[Message]:
        """Everything in a topic, once it holds the commit `through_seq`."""
        found: list[Message] = []
        reader = WholeTopicReader(self.kafka, topic, start=FromBeginning())
        try:
            async for read in reader:
                assert isinstance(read, Batch)
                found += read.messages
                reached = max((int(one.header("ce_commitseq") or 0) for one in found), default=0)
                if read.at_end and reached >= through_seq:
                    return found
        finally:
            await reader.close()
        raise AssertionError("the topic ended")


def fresh(kind: str) -> str:
    """A name that no other test has."""
    return f"{kind}-{secrets.token_hex(4)}"


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def policy(platform: Platform) -> AsyncIterator[PolicyUnderTest]:
    """One running policy service for all tests of this folder."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-policy-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        broker = broker_from_env(directory)
        await broker.start()
        stack.push_async_callback(broker.stop)
        issuer = await _issuer(directory, stack)
        dsn = await _database(platform)
        keys = {name: SigningKey.generate() for name in ("policy", "sync")}
        keys["policy"].save(directory / "policy.key")
        settings = _settings(directory, broker.bootstrap, issuer, dsn, keys)
        kafka = KafkaSettings(bootstrap=broker.bootstrap, client_id="test")
        await ensure_topics(kafka, topics.TOPICS, replication=1)
        session = await stack.enter_async_context(guarded_session(mode=Mode.DEVELOPMENT))
        service = build(settings, session)
        await stack.enter_async_context(service.app.router.lifespan_context(service.app))
        transport = httpx2.ASGITransport(app=service.app, raise_app_exceptions=False)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url="http://policy"))
        sync = FakeSync(kafka, keys["sync"])
        running = PolicyUnderTest(service, settings, kafka, issuer, sync, keys["policy"], http, dsn)
        await until(lambda: not service.readiness.reasons(), within=30)
        yield running


async def _issuer(directory: Path, stack: AsyncExitStack) -> DevIssuer:
    issuer: DevIssuer

    async def jwks(_: web.Request) -> web.Response:
        return web.json_response(issuer.jwks())

    app = web.Application()
    app.router.add_get("/jwks", jwks)
    server = TestServer(app)
    await server.start_server()
    stack.push_async_callback(server.close)
    issuer = DevIssuer(directory / "issuer", url=str(server.make_url("")).rstrip("/"))
    return issuer


async def _database(platform: Platform) -> str:
    name = f"policy_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    return platform.postgres.dsn(name, name)


def _settings(directory: Path, bootstrap: str, issuer: DevIssuer, dsn: str, keys: dict[str, SigningKey]) -> Settings:
    common = CommonSettings(
        mode=Mode.DEVELOPMENT,
        kafka_bootstrap=bootstrap,
        kafka_replication=1,
        policy_key=keys["policy"].verify_key.to_base64(),
        catalog_key=keys["sync"].verify_key.to_base64(),
    )
    own = PolicySettings(
        signing_key_file=directory / "policy.key",
        database_url=dsn.replace("postgresql://", "postgresql+asyncpg://"),
        resolver_keys=RESOLVER_KEY,
        resolver_urls="http://resolver-1,http://resolver-2",
        windows_every_s=0.05,
    )
    admin = AdminSettings(issuer=issuer.url, jwks_uri=issuer.jwks_uri)
    return Settings(common=common, policy=own, admin=admin)


@pytest_asyncio.fixture(loop_scope="session")
async def ledger(policy: PolicyUnderTest) -> AsyncIterator[PgLedger]:
    """The ledger of a second replica on the same database."""
    engine = engine_for(policy.settings.policy.database(), schema=SCHEMA, pool=5)
    yield PgLedger(sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE), PolicyKey(policy.key))
    await engine.dispose()
