"""A service's outbox on a real database and topics of its own on a real broker, new for each test."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.dev.platform import Broker, Platform
from services.dev.platform.broker import ExternalBroker, broker_from_env
from shared.bus.cloudevents import Message, received
from shared.bus.connection import KafkaSettings, disconnect, ensure_topics
from shared.database import Sessions, engine_for, sessions_for
from shared.outbox.commits import Commit, CommitLog
from shared.outbox.relay import Relay
from shared.outbox.tables import create_statements
from shared.topics import Topic
from tests.fakes.state_topic import Lamp, Switched
from tests.platform_fixtures import Database
from tests.waiting import until

SCHEMA = "tests"


@dataclass(slots=True)
class Service:
    """The writing half of a service: what a test needs to commit, relay and look."""

    kafka: KafkaSettings
    state: Topic
    changes: Topic
    engine: AsyncEngine
    sessions: Sessions
    url: URL = field(repr=False)
    commits: CommitLog = field(default_factory=lambda: CommitLog(schema=SCHEMA, source="keyfob/tests"))
    Lamp: type[Lamp] = Lamp
    Switched: type[Switched] = Switched

    def __post_init__(self) -> None:
        """Give the models topics of their own."""
        self.Lamp = type("Lamp", (Lamp,), {"TOPIC": self.state.name, "__doc__": "Of this test."})
        self.Switched = type("Switched", (Switched,), {"TOPIC": self.changes.name, "__doc__": "Of this test."})

    def say(self, commit: Commit, *names: str, colour: str = "white") -> None:
        """A record for each name and an event for the first."""
        for name in names:
            commit.state(self.Lamp(id=f"lamp/{name}", seq=commit.seq, revision=commit.seq, colour=colour))
        commit.event(self.Switched(lamp=names[0]), key=f"lamp/{names[0]}", event_id=secrets.token_hex(8))

    async def commit(self, *names: str, colour: str = "white") -> int:
        """One whole commit; returns its number."""
        async with self.sessions() as session, session.begin():
            commit = await self.commits.begin(session)
            self.say(commit, *names, colour=colour)
            await commit.flush()
        return commit.seq

    def relay(self) -> Relay:
        """A relay of this service, not running."""
        return Relay(database=self.url, schema=SCHEMA, kafka=self.kafka, state_topic=self.state.name)

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[Relay]:
        """A relay at work."""
        relay = self.relay()
        task = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def published(self, topic: Topic | None = None) -> list[Message]:
        """Every committed message of a topic, by default of the topic of state."""
        return await everything_in(self.kafka, (topic or self.state).name)

    async def published_seqs(self) -> list[int]:
        """The commit of every record in the topic of state, in its order."""
        return [int(message.header("ce_commitseq") or -1) for message in await self.published()]

    async def run_sql(self, statement: str, **parameters: Any) -> list[Any]:
        """One statement in the service's schema."""
        async with self.engine.begin() as connection:
            result = await connection.execute(text(statement), parameters)
            return list(result.all()) if result.returns_rows else []


async def everything_in(kafka: KafkaSettings, topic: str) -> list[Message]:
    """All committed messages of a topic with one partition, as of now."""
    partition = TopicPartition(topic, 0)
    consumer, written = kafka.consumer(), kafka.consumer(isolation_level="read_uncommitted")
    try:
        for one in (consumer, written):
            one.assign([partition])
            await one.start()
        # A commit is promised before its markers are in every partition: what is written counts once they are.
        last = (await written.end_offsets([partition]))[partition]
        await until(lambda: _is_stable(consumer, partition, last), within=10)
        await consumer.seek_to_beginning(partition)
        messages: list[Message] = []
        while await consumer.position(partition) < last:
            found = await consumer.getmany(partition, timeout_ms=100)
            messages += map(received, found.get(partition, []))
        return messages
    finally:
        await disconnect(consumer)
        await disconnect(written)


async def _is_stable(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> bool:
    ends = await consumer.end_offsets([partition])
    return bool(ends[partition] >= offset)


def ordered(name: str, *, compacted: bool = False) -> Topic:
    """A topic with one partition and a name of its own."""
    kept = None if compacted else timedelta(days=1)
    return Topic(name=f"{name}.{secrets.token_hex(4)}", partitions=1, kept=kept, ordered=True)


async def make_service(kafka: KafkaSettings, dsn: str) -> Service:
    """Topics, schema and tables."""
    state, changes = ordered("tests-state", compacted=True), ordered("tests-changes")
    await ensure_topics(kafka, (state, changes))
    url = make_url(dsn).set(drivername="postgresql+asyncpg")
    engine = engine_for(url, schema=SCHEMA)
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        for statement in create_statements(SCHEMA):
            await connection.execute(statement)
    return Service(kafka, state, changes, engine, sessions_for(engine), url)


@pytest.fixture
def kafka(platform: Platform) -> KafkaSettings:
    """The shared broker."""
    return KafkaSettings(bootstrap=platform.broker.bootstrap, client_id="tests")


@pytest_asyncio.fixture(loop_scope="session")
async def service(kafka: KafkaSettings, database: Database) -> AsyncIterator[Service]:
    """A service on the shared broker and a database of its own."""
    made = await make_service(kafka, database.dsn)
    yield made
    await made.engine.dispose()


@pytest_asyncio.fixture(loop_scope="session")
async def own_broker(platform: Platform, state_directory: Path) -> AsyncIterator[Broker]:
    """A broker that a test may stop and start."""
    broker = broker_from_env(state_directory)
    if isinstance(broker, ExternalBroker):
        pytest.skip("an external broker isn't ours to stop")
    await broker.start()
    yield broker
    await broker.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def service_on_own_broker(own_broker: Broker, database: Database) -> AsyncIterator[Service]:
    """A service on a broker that a test may stop and start."""
    made = await make_service(KafkaSettings(bootstrap=own_broker.bootstrap, client_id="tests"), database.dsn)
    yield made
    await made.engine.dispose()


def seqs_of(messages: Iterable[Message]) -> list[int]:
    """The commits of these messages, each once, in order."""
    return list(dict.fromkeys(int(message.header("ce_commitseq") or -1) for message in messages))
