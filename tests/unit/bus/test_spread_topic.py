"""A reader of spread topics: each partition from a moment on, nothing left out, and "caught up" only with proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, UnknownTopicOrPartitionError
from structlog.testing import capture_logs

from shared.bus import spread_topic
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings
from shared.bus.spread_topic import SpreadTopicReader
from shared.errors import Unavailable
from tests.fakes.kafka_topic import FakeRecord
from tests.waiting import until

TOPIC = "keyfob.tests-spread.v1"
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
SINCE_MS = int(SINCE.timestamp() * 1000)


@dataclass(slots=True)
class Broker:
    """Partitions in memory. Give it as the `kafka` of a reader."""

    partitions: dict[int, list[FakeRecord]] = field(default_factory=lambda: {0: [], 1: []})
    away: bool = False
    unknown_starts: int = 0
    """So many starts find no metadata of the topic."""

    starts: int = 0
    stopped: int = 0

    def write(self, partition: int, key: str, *, after_ms: int = 0) -> None:
        records = self.partitions.setdefault(partition, [])
        at = SINCE_MS + after_ms
        records.append(FakeRecord(TOPIC, len(records), key.encode(), b"", (), partition=partition, timestamp=at))

    def consumer(self, topic: str, **settings: Any) -> Consumer:
        assert (topic, settings["group_id"]) == (TOPIC, None)
        return Consumer(self)


class Consumer:
    """The part of aiokafka's consumer that the reader uses; like that one it can be started once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._started = False
        self._at: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        assert not self._started, "Did you call `start` twice?"
        self._answer()
        self._started = True
        self._broker.starts += 1
        if self._broker.unknown_starts:
            self._broker.unknown_starts -= 1
            raise UnknownTopicOrPartitionError

    async def stop(self) -> None:
        self._broker.stopped += 1

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, number) for number in self._broker.partitions}

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        self._answer()
        return {partition: self._first_since(partition, at) for partition, at in times.items()}

    def _first_since(self, partition: TopicPartition, at: int) -> FakeRecord | None:
        records = self._broker.partitions[partition.partition]
        return next((record for record in records if record.timestamp >= at), None)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        self._answer()
        return {partition: len(self._broker.partitions[partition.partition]) for partition in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._at[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        return self._at.get(partition, 0)

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[FakeRecord]]:
        self._answer()
        await asyncio.sleep(0.001)
        found = {}
        for partition in self.assignment():
            records = self._broker.partitions[partition.partition][self._at.get(partition, 0) :]
            if records:
                found[partition] = records
                self._at[partition] = self._at.get(partition, 0) + len(records)
        return found

    def _answer(self) -> None:
        if self._broker.away:
            raise KafkaConnectionError


@dataclass(slots=True)
class Reading:
    """A reader at work, what it handed out, and a gate that holds back whoever takes it in."""

    reader: SpreadTopicReader
    seen: list[str | None] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        await self.reader.run(self.take)

    async def take(self, batch: tuple[Message, ...]) -> None:
        self.seen.extend(message.key for message in batch)
        await self.gate.wait()


@asynccontextmanager
async def reading(broker: Broker, *, held_back: bool = False) -> AsyncIterator[Reading]:
    it = Reading(SpreadTopicReader(cast("KafkaSettings", broker), TOPIC, since=SINCE))
    if not held_back:
        it.gate.set()
    it.task = asyncio.create_task(it.run())
    try:
        with capture_logs():
            yield it
    finally:
        it.task.cancel()
        await asyncio.wait({it.task})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread_topic, "RETRY_AFTER_S", 0.001)


@pytest.fixture
def broker() -> Broker:
    broker = Broker()
    broker.write(0, "old", after_ms=-1)
    broker.write(0, "a")
    broker.write(1, "b", after_ms=5)
    return broker


async def test_it_reads_every_partition_from_the_wanted_moment_on(broker: Broker) -> None:
    async with reading(broker) as it:
        await until(lambda: sorted(map(str, it.seen)) == ["a", "b"])
        assert it.reader.trouble is None


async def test_a_partition_with_nothing_so_young_begins_at_its_end(broker: Broker) -> None:
    broker.partitions[1] = []
    broker.write(1, "ancient", after_ms=-1)
    async with reading(broker) as it:
        await until(lambda: it.seen)
        broker.write(1, "young")
        await until(lambda: sorted(map(str, it.seen)) == ["a", "young"])


async def test_a_partition_that_is_added_is_read_as_well(broker: Broker) -> None:
    async with reading(broker) as it:
        await until(lambda: len(it.seen) == 2)
        broker.write(7, "c")
        await until(lambda: "c" in it.seen)


async def test_a_broker_that_goes_away_is_waited_for_and_nothing_is_read_twice(broker: Broker) -> None:
    async with reading(broker) as it:
        await until(lambda: len(it.seen) == 2)
        broker.away = True
        await until(lambda: it.reader.trouble)
        broker.write(0, "c")
        broker.away = False
        await until(lambda: "c" in it.seen)
        assert sorted(map(str, it.seen)) == ["a", "b", "c"]
        assert it.reader.trouble is None


async def test_a_broker_that_does_not_know_the_topic_yet_is_asked_by_a_new_connection(broker: Broker) -> None:
    """A consumer whose start failed half-way can't be started again."""
    broker.unknown_starts = 3
    async with reading(broker) as it:
        await until(lambda: len(it.seen) == 2)
        assert broker.stopped >= 3


async def test_whoever_is_stopped_while_it_takes_a_batch_in_leaves_no_connection_behind(broker: Broker) -> None:
    async with reading(broker, held_back=True) as it:
        await until(lambda: it.seen)
    assert broker.stopped == 1


async def test_why_nothing_is_read_is_said_in_one_line(broker: Broker) -> None:
    broker.away = True
    async with reading(broker) as it:
        await until(lambda: "broker down, or wrong credentials" in str(it.reader.trouble))
        with pytest.raises(Unavailable, match="wrong credentials"):
            await it.reader.caught_up()


class TestCaughtUp:
    async def test_before_it_is_connected_nobody_can_say(self, broker: Broker) -> None:
        reader = SpreadTopicReader(cast("KafkaSettings", broker), TOPIC, since=SINCE)
        with pytest.raises(Unavailable, match="not connected"):
            await reader.caught_up()

    async def test_what_was_there_when_asked_has_been_taken_in(self, broker: Broker) -> None:
        async with reading(broker) as it:
            await until(lambda: it.reader.trouble is None)
            for number in range(5):
                broker.write(number % 2, f"n{number}")
            await it.reader.caught_up()
            assert {f"n{number}" for number in range(5)} <= set(it.seen)

    async def test_handed_out_is_not_yet_taken_in(self, broker: Broker) -> None:
        async with reading(broker, held_back=True) as it:
            await until(lambda: it.seen)
            with pytest.raises(Unavailable, match="not reached"):
                await it.reader.caught_up(within_s=0.02)
            it.gate.set()
            await it.reader.caught_up()

    async def test_a_broker_that_does_not_answer_proves_nothing(self, broker: Broker) -> None:
        async with reading(broker, held_back=True) as it:
            await until(lambda: it.seen)
            broker.away = True
            with pytest.raises(Unavailable, match="KafkaConnectionError"):
                await it.reader.caught_up()

    async def test_a_topic_without_a_partition_in_sight_proves_nothing(self, broker: Broker) -> None:
        async with reading(broker) as it:
            await until(lambda: len(it.seen) == 2)
            broker.partitions.clear()
            with pytest.raises(Unavailable, match="no partition"):
                await it.reader.caught_up()

    async def test_several_may_ask_at_once(self, broker: Broker) -> None:
        async with reading(broker, held_back=True) as it:
            await until(lambda: it.seen)
            asking = [asyncio.create_task(it.reader.caught_up()) for _ in range(3)]
            await asyncio.sleep(0)
            it.gate.set()
            await asyncio.wait_for(asyncio.gather(*asking), 5)
