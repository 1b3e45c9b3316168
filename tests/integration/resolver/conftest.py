"""One replica in this process, on the real broker and the real secret manager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from services.dev.platform import READ_VALUES, Broker, DevIssuer, Platform, broker_from_env
from services.dev.platform.private import write_private
from services.dev.platform.supervision import until_ready
from services.resolver.app import Replica, Settings, replica
from services.resolver.domain.snapshot import Floor
from services.resolver.settings import ResolverSettings
from shared import topics
from shared.bus.connection import KafkaSettings, ensure_topics
from shared.config import AdminSettings, CommonSettings, Mode
from shared.crypto.signing import SigningKey
from shared.topics import TOPICS
from shared.wiring import kafka_settings
from tests.fakes.estate import Estate, hospitals, publish_all
from tests.fakes.gateway import FakeGateway
from tests.waiting import until

AUDIENCE = "http://resolver.test"


@dataclass(slots=True)
class World:
    """Everything around one replica."""

    platform: Platform
    broker: Broker
    issuer: DevIssuer
    estate: Estate
    kafka: KafkaSettings
    producer: AIOKafkaProducer
    replica: Replica
    gateway: FakeGateway
    folder: str
    settings: Settings
    published: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def say(self) -> Floor:
        """Publish what the estate wrote since the last time, a tick behind it."""
        async with self.turn:
            self.estate.tick()
            news, self.published = self.estate.messages[self.published :], len(self.estate.messages)
            floor = Floor(self.estate.seqs[topics.POLICY], self.estate.seqs[topics.CATALOG])
            await publish_all(self.producer, news)
        return floor

    async def tell(self) -> Floor:
        """Publish, and wait until the replica has it."""
        floor = await self.say()
        await until(lambda: self.replica.knowledge.snapshot().floor.covers(floor), within=15)
        return floor

    async def keep_ticking(self) -> None:
        """Policy's tick, as it comes every second; also while the broker is away, like policy's own."""
        while True:
            await asyncio.sleep(1.0)
            await self.say()

    async def fresh(self) -> None:
        """Wait until the replica can prove that what it knows is current."""
        await until(lambda: self.replica.knowledge.stale() is None, within=30)

    async def rotate(self, hospital: str, value: str) -> str:
        """A new value in the secret manager, of which the catalog has not heard yet; its version."""
        return str(await self.platform.openbao.put(f"{self.folder}/{hospital}", {"db-dsn": value}))

    def token(self, hospital: str, subject: str = "agent") -> str:
        """A token of somebody who works there."""
        return self.issuer.token(subject, [f"{hospital}-staff"])


async def forget_custody(kafka: KafkaSettings) -> None:
    """Make the topic of custody anew, for a database that has published nothing: a relay refuses another one's past."""
    (topic,) = (topic for topic in TOPICS if topic.name == topics.CUSTODY_CHANGES)
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        await admin.delete_topics([topic.name])

        async def gone() -> bool:
            return topic.name not in await admin.list_topics()

        await until(gone, within=15)
    finally:
        await admin.close()
    await ensure_topics(kafka, [topic])


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def world(platform: Platform) -> AsyncIterator[World]:
    """A replica with two hospitals, on a broker of its own: state topics have one owner."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-resolver-"))
    broker = broker_from_env(directory / "broker", logs=directory / "logs")
    issuer = DevIssuer(directory / "issuer")
    serving = issuer.process(log=directory / "issuer.log")
    serving.start()
    try:
        await asyncio.gather(broker.start(), until_ready(serving, issuer.jwks_uri, within_s=15))
        async with _world(platform, broker, issuer, directory) as running:
            yield running
    finally:
        await asyncio.gather(broker.stop(), serving.stop())
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def _world(platform: Platform, broker: Broker, issuer: DevIssuer, directory: Path) -> AsyncIterator[World]:
    estate = hospitals(origin=platform.openbao.url, issuer=issuer.url)
    # The mount is shared by the whole test run: the folder is this one's own.
    folder = f"resolver-{secrets.token_hex(4)}"
    for name in ("hospital-a", "hospital-b"):
        await platform.openbao.put(f"{folder}/{name}", {"db-dsn": secret_of(name)})
        estate.again(f"reference/{name}/db-dsn", path=f"{folder}/{name}")
    identity = estate.instance()
    settings = await _settings(platform, broker, issuer, estate, directory)
    kafka = kafka_settings(settings.common, client_id="estate")
    await ensure_topics(kafka, TOPICS, replication=1)
    producer = kafka.producer()
    await producer.start()
    resolver_key = SigningKey.load(settings.resolver.signing_key_file)
    async with replica(settings) as running, running.lifespan():
        gateway = FakeGateway(identity, AUDIENCE, resolver_key.verify_key, running.app)
        world = World(platform, broker, issuer, estate, kafka, producer, running, gateway, folder, settings)
        ticking = asyncio.create_task(world.keep_ticking())
        try:
            await world.tell()
            await world.fresh()
            yield world
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            await producer.stop()


async def _settings(platform: Platform, broker: Broker, issuer: DevIssuer, estate: Estate, directory: Path) -> Settings:
    key_file = directory / "resolver.key"
    SigningKey.generate().save(key_file)
    credentials = directory / "credentials"
    credentials.mkdir()
    token = await platform.openbao.token_for([READ_VALUES])
    write_private(credentials / "vault.json", json.dumps({"origin": platform.openbao.url, "token": token}))
    common = CommonSettings(
        mode=Mode.DEVELOPMENT,
        kafka_bootstrap=broker.bootstrap,
        kafka_replication=1,
        policy_key=estate.policy_key.verify_key.to_base64(),
        catalog_key=estate.catalog_key.verify_key.to_base64(),
    )
    settings = ResolverSettings(
        replica_id="resolver-under-test", audience=AUDIENCE, signing_key_file=key_file, credentials_dir=credentials
    )
    admin = AdminSettings(issuer=issuer.url, jwks_uri=issuer.jwks_uri)
    return Settings(common=common, resolver=settings, admin=admin)


def secret_of(hospital: str) -> str:
    """What stands in the secret manager for a hospital; long and odd enough to be searched for."""
    return f"postgresql://{hospital}:{_PASSWORD}@db/{hospital}"


_PASSWORD = f"pw-{secrets.token_hex(8)}"
