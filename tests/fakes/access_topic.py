"""A producer of the `access` topic whose broker answers when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError

from shared.events.access import AccessRecord


@dataclass(slots=True)
class FakeBatch:
    """What `create_batch` gives: at most `room` records."""

    room: int
    records: list[tuple[bytes, bytes, Sequence[tuple[str, bytes]]]] = field(default_factory=list)
    closed: bool = False

    def append(self, *, timestamp: None, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> object | None:
        """One record, unless the batch is full."""
        if len(self.records) >= self.room:
            return None
        self.records.append((key, value, headers))
        return object()

    def close(self) -> None:
        """Nothing more goes in."""
        self.closed = True


@dataclass(slots=True)
class FakeBroker:
    """What is in the topic, over all producers; `by_hand` makes every batch wait for `acknowledge` or `fail`."""

    room: int = 1_000
    by_hand: bool = False
    topic: list[bytes] = field(default_factory=list)
    producers: int = 0
    waiting: list[tuple[FakeBatch, asyncio.Future[None]]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def producer(self) -> Any:
        """A new producer."""
        self.producers += 1
        return FakeProducer(self)

    def acknowledge(self) -> None:
        """The oldest batch under way is durable."""
        batch, done = self.waiting.pop(0)
        self.land(batch)
        done.set_result(None)

    def fail(self, *, landed: bool) -> None:
        """The producer of the oldest batch fails for good; whether it `landed` nobody is told."""
        batch, done = self.waiting.pop(0)
        if landed:
            self.land(batch)
        done.set_exception(KafkaError("fenced, or out of order, or closed"))

    def land(self, batch: FakeBatch) -> None:
        """The batch is in the topic."""
        self.batches.append(len(batch.records))
        self.topic += [value for _, value, _ in batch.records]

    def records(self) -> list[AccessRecord]:
        """Everything in the topic, read by its contract."""
        return [AccessRecord.model_validate_json(payload) for payload in self.topic]


@dataclass(slots=True)
class FakeProducer:
    """What the recorder uses of aiokafka's producer."""

    broker: FakeBroker

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    async def partitions_for(self, topic: str) -> set[int]:
        """The topic's partitions."""
        return {0, 1, 2}

    def create_batch(self) -> FakeBatch:
        """An empty batch."""
        return FakeBatch(self.broker.room)

    async def send_batch(self, batch: FakeBatch, topic: str, *, partition: int) -> asyncio.Future[None]:
        """A future that is done when the batch is durable."""
        assert batch.closed
        assert len({key for key, _, _ in batch.records}) == 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.broker.waiting.append((batch, done))
        if not self.broker.by_hand:
            self.broker.acknowledge()
        return done
