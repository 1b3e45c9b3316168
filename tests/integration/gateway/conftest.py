"""A gateway on a real broker, a real resolver and a real database, behind a real socket; `mcp-alchemy` below it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest_asyncio
import uvicorn
from aiokafka import AIOKafkaConsumer
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from services.dev.platform import Platform, tool_environment
from services.gateway.app import Gateway, build
from services.gateway.client.environment import NO_ENVIRONMENT, Environment
from services.gateway.client.identity import Identity, Keys
from services.gateway.client.posting import Posted
from services.gateway.files import is_in_memory, usual_places
from services.gateway.settings import GatewaySettings
from shared import topics
from shared.bus.cloudevents import Message, decode, encode, received
from shared.bus.signatures import from_header
from shared.config import CommonSettings, Mode
from shared.delivery.messages import EnrolAnswer
from shared.delivery.receipts import receipt_verifies
from shared.events.definitions import EnvironmentField, StdioServer
from shared.events.notices import Notice, NoticeKind, NoticeTick, Superseded
from shared.events.receipts import GatewayReceipt
from shared.serving import Background
from tests.fakes.asgi import call
from tests.fakes.estate import InstanceIdentity
from tests.fakes.hospitals import first, installation, second
from tests.integration.resolver.conftest import AUDIENCE, World, world
from tests.waiting import until

__all__ = ["first", "installation", "second", "world"]

SERVER = "alchemy"
PATIENTS = {"hospital-a": ["Ada", "Anton"], "hospital-b": ["Bela", "Boris"]}


@dataclass(slots=True)
class Hospital:
    """A database, its role, and the reference to its URL."""

    name: str
    database: str
    reference: str
    version: int = 1


@dataclass(slots=True)
class Wing:
    """What the tests of the gateway play with."""

    platform: Platform
    world: World
    gateway: Gateway
    url: str
    hospitals: dict[str, Hospital]
    receipts: list[GatewayReceipt] = field(default_factory=list)
    forged: list[Message] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def connect(self, hospital: str, *, mode: str = "auto", subject: str = "agent") -> AsyncIterator[Client]:
        """An agent of a hospital, by the official SDK."""
        headers = {"Authorization": f"Bearer {self.world.token(hospital, subject)}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(f"{self.url}/mcp/{SERVER}", http_client=http), mode=mode) as client,
        ):
            yield client

    async def say(self, notice: Notice | NoticeTick) -> int:
        """What the notifier would publish; its offset."""
        message = encode(notice, key=None, source="keyfob/notifier", event_id=secrets.token_hex(8))
        sent = await self.world.producer.send_and_wait(message.topic, message.value, headers=list(message.headers))
        return int(sent.offset)

    async def keep_ticking(self) -> None:
        """Pass policy's ticks on, as the notifier does."""
        passed = 0
        while True:
            news, passed = self.world.estate.messages[passed:], len(self.world.estate.messages)
            for message in news:
                if message.key == "tick":
                    await self.say(tick_of(message))
            await asyncio.sleep(0.2)

    async def rotate(self, name: str) -> int:
        """A new password, connections cut, a new URL in the secret manager, and the notice of it; its offset."""
        hospital = self.hospitals[name]
        await self.platform.postgres.set_password(hospital.database, secrets.token_urlsafe(16))
        await self.platform.postgres.disconnect(hospital.database)
        await self.put(hospital)
        hospital.version += 1
        estate = self.world.estate
        estate.again(f"reference/{hospital.reference}", version=str(hospital.version))
        seq = estate.seqs[topics.CATALOG]
        await self.world.tell()
        superseded = (Superseded(reference_id=f"reference/{hospital.reference}", current=str(hospital.version)),)
        return await self.say(
            Notice(
                id=f"notice/{secrets.token_hex(8)}",
                kind=NoticeKind.ROTATION,
                cause_id=f"change/{secrets.token_hex(8)}",
                superseded=superseded,
                catalog_seq=seq,
                at=datetime.now(UTC),
            )
        )

    async def put(self, hospital: Hospital) -> None:
        """The connection URL goes into the secret manager, and nowhere else."""
        dsn = self.platform.postgres.dsn(hospital.database, hospital.database)
        url = dsn.replace("postgresql://", "postgresql+psycopg2://", 1)
        await self.platform.openbao.put(hospital.reference.partition("/")[0], {"dsn": url})

    async def dropped(self, offset: int) -> GatewayReceipt:
        """The first receipt that says that everything up to `offset` is gone."""
        return await until(
            lambda: next((one for one in self.receipts if one.dropped_offset >= offset), None), within=20
        )

    async def read_receipts(self, key_of: Identity) -> None:
        """What everybody can read in the topic."""
        consumer: AIOKafkaConsumer = self.world.kafka.consumer(topics.RECEIPTS, auto_offset_reset="earliest")
        try:
            await consumer.start()
            async for record in consumer:
                message = received(record)
                if message.type != GatewayReceipt.TYPE:
                    continue
                receipt = decode(message, GatewayReceipt)
                # Tests start gateways of their own on the same topics.
                if receipt.instance_id != key_of.instance_id:
                    continue
                genuine = receipt_verifies(message, receipt, key_of.keys.signing.verify_key)
                self.receipts.append(receipt) if genuine else self.forged.append(message)
        finally:
            await consumer.stop()


def tick_of(message: Message) -> NoticeTick:
    """Policy's tick as the notifier passes it on."""
    signature = from_header(message.header("ce_signature"))
    assert signature is not None
    return NoticeTick(payload=message.value, signature=signature, key_id=message.header("ce_keyid") or "")


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def wing(platform: Platform, world: World) -> AsyncIterator[Wing]:
    """Two hospitals with databases, behind one gateway."""
    tool = await tool_environment("mcp-alchemy")
    hospitals = await _hospitals(platform, world, tool)
    await world.tell()
    identity = identity_of(world, world.gateway.identity)
    async with opened(world, identity) as (gateway, url):
        running = Wing(platform, world, gateway, url, hospitals)
        tasks = [
            asyncio.create_task(running.keep_ticking()),
            asyncio.create_task(running.read_receipts(identity)),
        ]
        try:
            await until(lambda: gateway.instance.not_ready() is None, within=30)
            yield running
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _hospitals(platform: Platform, world: World, tool: Path) -> dict[str, Hospital]:
    definition = StdioServer(command=str(tool / "mcp-alchemy"), fields=(EnvironmentField(name="DB_URL"),))
    world.estate.server(SERVER, definition)
    hospitals = {}
    for name, patients in PATIENTS.items():
        database = f"{name.replace('-', '_')}_{secrets.token_hex(4)}"
        hospital = Hospital(name, database, f"{database}/dsn")
        await platform.postgres.create_database(database, owner=database, password=secrets.token_urlsafe(16))
        rows = ", ".join(f"('{patient}')" for patient in patients)
        statement = f"CREATE TABLE patients AS SELECT * FROM (VALUES {rows}) AS p (name)"  # noqa: S608 - our own rows
        await platform.postgres.execute(statement, database=database)
        await platform.postgres.execute(f'GRANT SELECT ON patients TO "{database}"', database=database)
        hospitals[name] = hospital
        dsn = platform.postgres.dsn(database, database).replace("postgresql://", "postgresql+psycopg2://", 1)
        await platform.openbao.put(database, {"dsn": dsn})
        world.estate.reference(hospital.reference)
        world.estate.grant(name, hospital.reference)
        world.estate.binding(name, hospital.reference, server=SERVER)
    return hospitals


@contextlib.asynccontextmanager
async def opened(
    world: World, identity: Identity, environment: Environment = NO_ENVIRONMENT
) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that runs, and its URL."""
    # An instance empties its directories at its start, and another process may run tests with one of this id.
    memory = next((place for place in usual_places() if is_in_memory(place)), None)
    with (
        tempfile.TemporaryDirectory(prefix="keyfob-scratch-") as scratch,
        tempfile.TemporaryDirectory(prefix="keyfob-files-", dir=memory) as files,
    ):
        places = {"scratch_dir": Path(scratch), "value_file_dir": Path(files)}
        async with _gateway(world, identity, environment, **places) as running:
            yield running


@contextlib.asynccontextmanager
async def _gateway(
    world: World, identity: Identity, environment: Environment, **places: Path
) -> AsyncIterator[tuple[Gateway, str]]:
    common = CommonSettings(mode=Mode.DEVELOPMENT, kafka_bootstrap=world.broker.bootstrap, kafka_replication=1)
    settings = GatewaySettings(
        resolver_urls=AUDIENCE,
        kafka_bootstrap=world.broker.bootstrap,
        heartbeat_s=0.2,
        **places,
        # A checkout may lie in /tmp, which sandboxes hide.
        sandbox_shows=",".join(map(str, (Path(__file__).parents[3], sys.prefix, sys.base_prefix))),
    )

    async def post(url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        reply = await call(
            world.replica.app, "POST", "/v1/resolve", headers=[("Host", "resolver.test"), *headers.items()], body=body
        )
        return Posted(reply.status, reply.headers, reply.body)

    gateway = build(
        identity, settings=settings, common=common, post=post, background=Background(), environment=environment
    )
    async with _served(gateway) as url:
        yield gateway, url


def identity_of(world: World, known: InstanceIdentity) -> Identity:
    """What an instance that the estate enrolled keeps for its life."""
    return Identity(
        Keys(known.signing, known.sealing),
        EnrolAnswer(
            instance_id=known.id,
            labels={},
            allowed_servers=("*",),
            resolver_keys=(world.gateway.resolver_key.to_base64(),),
            policy_key=world.estate.policy_key.verify_key.to_base64(),
        ),
    )


@contextlib.asynccontextmanager
async def _served(gateway: Gateway) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(gateway.app, port=0, log_config=None, timeout_graceful_shutdown=2))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started, within=20)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
