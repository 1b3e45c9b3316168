"""A whole sync service in this process, behind a real port, with a real OpenBao whose audit device posts to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import hvac
import pytest
import pytest_asyncio
import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from services.dev.platform import METADATA_ONLY, OpenBao, Platform, plain_environment
from services.dev.platform.broker import Broker, broker_from_env
from services.dev.platform.issuing import DevIssuer
from services.sync.app import Settings, build
from services.sync.settings import SyncSettings
from services.sync.store.tables import SCHEMA
from shared import topics
from shared.bus.cloudevents import Message, decode
from shared.bus.connection import KafkaSettings, ensure_topics
from shared.bus.signatures import from_header, record_verifies
from shared.bus.whole_topic import Batch, FromBeginning, WholeTopicReader
from shared.config import AdminSettings, CommonSettings, Mode
from shared.crypto.signing import SigningKey
from shared.egress import Egress, guarded_session
from shared.events.catalog import ReferenceRecord
from shared.events.changes import VaultChange
from shared.events.contract import Contract
from tests.fakes.loopback import free_port, write_secret
from tests.waiting import until

SOURCE = "main-vault"
C = TypeVar("C", bound=Contract)


class _QuietServer(uvicorn.Server):
    """Leaves the signals of the test process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(slots=True)
class SyncUnderTest:
    """The running service, the vault that it watches, and what tests ask of both."""

    settings: Settings
    kafka: KafkaSettings
    issuer: DevIssuer
    key: SigningKey
    vault: OpenBao
    broker: Broker
    http: httpx2.AsyncClient
    feed_secret: str = field(repr=False)
    token: str = field(repr=False)

    def environment(self, **more: str) -> dict[str, str]:
        """What a sync process of its own is started with."""
        own, common, admin = self.settings.sync, self.settings.common, self.settings.admin
        given = {
            "KEYFOB_MODE": "development",
            "KEYFOB_KAFKA_BOOTSTRAP": common.kafka_bootstrap,
            "KEYFOB_KAFKA_REPLICATION": "1",
            "KEYFOB_CATALOG_KEY": common.catalog_key,
            "KEYFOB_ADMIN_ISSUER": admin.issuer,
            "KEYFOB_ADMIN_JWKS_URI": admin.jwks_uri,
            "KEYFOB_SYNC_PORT": str(own.port),
            "KEYFOB_SYNC_DATABASE_URL": own.database_url,
            "KEYFOB_SYNC_SIGNING_KEY_FILE": str(own.signing_key_file),
            "KEYFOB_SYNC_CREDENTIALS_DIR": str(own.credentials_dir),
            "KEYFOB_SYNC_FEED_SECRETS_DIR": str(own.feed_secrets_dir),
            "KEYFOB_SYNC_SWEEP_EVERY_S": str(own.sweep_every_s),
        }
        return plain_environment(**(given | more))

    async def call(
        self, method: str, path: str, body: Any = None, *, groups: tuple[str, ...] = ("keyfob-admins",), expect: int = 0
    ) -> Any:
        """The JSON answer; `expect` is the status that must come, any 2xx without."""
        headers = {"authorization": f"Bearer {self.issuer.token('ada', list(groups))}"}
        answer = await self.http.request(method, path, json=body, headers=headers)
        assert answer.status_code == expect if expect else answer.is_success, (answer.status_code, answer.text)
        return answer.json()

    async def status(self, method: str, path: str, body: Any = None, *, groups: tuple[str, ...]) -> int:
        """The status of an answer to somebody of these groups."""
        headers = {"authorization": f"Bearer {self.issuer.token('bob', list(groups))}"}
        return (await self.http.request(method, path, json=body, headers=headers)).status_code

    def admin_token(self) -> str:
        return self.issuer.token("ada", ["keyfob-admins"])

    def credential(self, name: str) -> str:
        return (self.settings.sync.credentials_dir / f"{name}.json").read_text()

    def write_credential(self, name: str, *, origin: str, token: str | None = None) -> None:
        """Let sync have a credential for a source; its own token without another."""
        document = json.dumps({"origin": origin, "token": token or self.token})
        write_secret(self.settings.sync.credentials_dir / f"{name}.json", document)

    async def connect(self, name: str, *, prefix: str) -> dict[str, Any]:
        """Connect one more source to the same vault, without a feed of its own."""
        self.write_credential(name, origin=self.vault.url)
        place = {"origin": self.vault.url, "prefix": prefix}
        return dict(await self.call("POST", "/v1/sources", {"name": name, "place": place}))

    async def count(self, source: str, number: int) -> bool:
        """Whether a source has so many references."""
        return len((await self.call("GET", f"/v1/references?source={source}"))["items"]) == number

    async def version(self, source: str, version: str) -> bool:
        """Whether all references of a source have that version."""
        items = (await self.call("GET", f"/v1/references?source={source}"))["items"]
        return {item["version"] for item in items} == {version}

    async def reference(self, path: str) -> dict[str, Any] | None:
        """The reference at a path, as the API shows it."""
        for item in (await self.call("GET", f"/v1/references?name={path}"))["items"]:
            if item["path"] == path:
                return dict(item)
        return None

    async def messages(self, topic: str) -> list[Message]:
        """Everything in a topic now."""
        found: list[Message] = []
        reader = WholeTopicReader(self.kafka, topic, start=FromBeginning())
        try:
            async for read in reader:
                assert isinstance(read, Batch)
                found += read.messages
                if read.at_end:
                    return found
        finally:
            await reader.close()
        raise AssertionError("the topic ended")

    async def changes(self, path: str) -> list[VaultChange]:
        """What `vault-changes` says about the reference that is, or was, at a path."""
        ids = {record.id for record, _ in await self.records(ReferenceRecord) if record.path == path}
        told = [decode(message, VaultChange) for message in await self.messages(topics.VAULT_CHANGES)]
        return [change for change in told if change.reference_id in ids]

    async def records(self, model: type[C]) -> list[tuple[C, Message]]:
        """The records of one kind in `catalog`; each must have been signed by sync."""
        found = []
        for message in await self.messages(topics.CATALOG):
            signature = from_header(message.header("ce_signature"))
            parts = {"topic": message.topic, "type_": message.type, "key": message.key, "payload": message.value}
            assert signature is not None
            assert record_verifies(self.key.verify_key, signature, **parts)  # type: ignore[arg-type]
            if message.type == model.TYPE:
                found.append((decode(message, model), message))
        return found

    async def until_changed(self, path: str, *kinds: str, within: float = 10) -> list[VaultChange]:
        """Wait until these changes, in this order, are all that the topic says about a path."""
        told: list[VaultChange] = []

        async def complete() -> bool:
            told[:] = await self.changes(path)
            return len(told) >= len(kinds)

        await until(complete, within=within, what=f"{kinds} of {path}")
        assert [change.kind.value for change in told] == list(kinds)
        return told


def fresh(kind: str) -> str:
    """A name that no other test has."""
    return f"{kind}-{secrets.token_hex(4)}"


@asynccontextmanager
async def serving(app: Any, port: int) -> AsyncIterator[None]:
    """Serve `app` on a port of loopback while the block runs."""
    server = _QuietServer(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started, within=20)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def installed(platform: Platform) -> AsyncIterator[SyncUnderTest]:
    """Everything that a sync service needs, with a broker and a vault of its own; the service itself is not started."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-sync-"))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        broker = broker_from_env(directory)
        await broker.start()
        stack.push_async_callback(broker.stop)
        issuer, port, feed_secret = await _issuer(directory, stack), free_port(), secrets.token_urlsafe(24)
        vault = OpenBao(
            directory / "openbao",
            audit_webhook=f"http://127.0.0.1:{port}/v1/feeds/{SOURCE}",
            audit_authorization=f"Bearer {feed_secret}",
        )
        await vault.start()
        stack.push_async_callback(vault.stop)
        token = await vault.token_for([METADATA_ONLY])
        write_secret(directory / "credentials" / f"{SOURCE}.json", json.dumps({"origin": vault.url, "token": token}))
        write_secret(directory / "feeds" / SOURCE, feed_secret)
        key = SigningKey.generate()
        key.save(directory / "sync.key")
        settings = _settings(
            directory, issuer, bootstrap=broker.bootstrap, dsn=await _database(platform), key=key, port=port
        )
        kafka = KafkaSettings(bootstrap=broker.bootstrap, client_id="test")
        await ensure_topics(kafka, topics.TOPICS, replication=1)
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=40))
        yield SyncUnderTest(settings, kafka, issuer, key, vault, broker, http, feed_secret, token)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def sync(platform: Platform) -> AsyncIterator[SyncUnderTest]:
    """One running sync service with one connected source for all tests of this folder."""
    # As `telemetry.configure` does in a process of its own, but for the logs, which are pytest's here.
    trace.set_tracer_provider(TracerProvider())
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(installed(platform))
        session = await stack.enter_async_context(guarded_session(mode=Mode.DEVELOPMENT))
        egress = await stack.enter_async_context(Egress(mode=Mode.DEVELOPMENT, timeout_s=2))
        service = build(running.settings, session, egress)
        await stack.enter_async_context(serving(service.app, running.settings.sync.port))
        await until(lambda: not service.readiness.reasons(), within=30)
        await running.call("POST", "/v1/sources", {"name": SOURCE, "place": {"origin": running.vault.url}})
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
    name = f"sync_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    return platform.postgres.dsn(name, name)


def _settings(directory: Path, issuer: DevIssuer, *, bootstrap: str, dsn: str, key: SigningKey, port: int) -> Settings:
    common = CommonSettings(
        mode=Mode.DEVELOPMENT,
        kafka_bootstrap=bootstrap,
        kafka_replication=1,
        catalog_key=key.verify_key.to_base64(),
    )
    own = SyncSettings(
        port=port,
        signing_key_file=directory / "sync.key",
        database_url=dsn.replace("postgresql://", "postgresql+asyncpg://"),
        credentials_dir=directory / "credentials",
        feed_secrets_dir=directory / "feeds",
        sweep_every_s=600,
        sweep_retry_s=0.2,
    )
    return Settings(common=common, sync=own, admin=AdminSettings(issuer=issuer.url, jwks_uri=issuer.jwks_uri))


@pytest.fixture
def admin(sync: SyncUnderTest) -> hvac.Client:
    """An ordinary client with all rights on the vault: the hospital's own tools.

    It blocks, and the vault waits for the service in this very process: call it in a thread.
    """
    keys = json.loads((sync.vault._directory / "keys.json").read_text())
    return hvac.Client(sync.vault.url, token=keys["root"])
