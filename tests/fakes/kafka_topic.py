"""A topic in memory behind the few calls that a reader of whole topics makes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError

from shared.bus.cloudevents import Message


@dataclass(slots=True)
class FakeRecord:
    """One record as a consumer sees it."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    partition: int = 0
    timestamp: int = 0


@dataclass(slots=True)
class FakeTopic:
    """What the broker holds. Give it as the `kafka` of a `WholeTopicReader`."""

    name: str
    records: list[FakeRecord] = field(default_factory=list)
    beginning: int = 0
    end: int = 0
    visible: int | None = None
    """The last stable offset while a transaction is open."""

    partitions: set[int] | None = field(default_factory=lambda: {0})
    away: bool = False
    starts: int = 0
    stops: int = 0
    unanswered: bool = False
    """Whether the broker takes connections and says nothing."""

    fetch_at_most: int = 1_000
    fetches_left: int | None = None
    """After so many fetches with records there are none, although records lie there."""

    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, messages: Iterable[Message]) -> None:
        """Write messages, whatever is in them."""
        for message in messages:
            key = None if message.key is None else message.key.encode()
            self.records.append(FakeRecord(self.name, self.end, key, message.value, message.headers))
            self.end += 1
        self.wrote.set()

    def compact(self, *offsets: int) -> None:
        """Remove records, leaving a gap."""
        self.records = [record for record in self.records if record.offset not in offsets]

    def cut(self, beginning: int) -> None:
        """Forget everything before `beginning`, as retention does."""
        self.beginning = beginning
        self.records = [record for record in self.records if record.offset >= beginning]
        self.wrote.set()

    def stable(self) -> int:
        """What a reader of committed records may see."""
        return self.end if self.visible is None else self.visible

    def consumer(self, **_: Any) -> FakeConsumer:
        """A consumer of this topic, as `KafkaSettings.consumer` makes one."""
        return FakeConsumer(self)


class FakeConsumer:
    """The part of aiokafka's consumer that readers use."""

    def __init__(self, topic: FakeTopic) -> None:
        self._topic = topic
        self._at = 0

    def assign(self, partitions: list[Any]) -> None:
        """As aiokafka: silent whether or not it is permitted."""

    async def start(self) -> None:
        """Connect."""
        self._topic.starts += 1
        self._answer()
        if self._topic.unanswered:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Disconnect."""
        self._topic.stops += 1

    def partitions_for_topic(self, _: str) -> set[int] | None:
        """None when the topic is missing or its metadata may not be read."""
        return self._topic.partitions

    def seek(self, _: Any, offset: int) -> None:
        """Go on at `offset`."""
        self._at = offset

    async def position(self, _: Any) -> int:
        """The next offset."""
        return self._at

    async def beginning_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        """The oldest offset that is kept."""
        self._answer()
        return dict.fromkeys(partitions, self._topic.beginning)

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        """The last stable offset."""
        self._answer()
        return dict.fromkeys(partitions, self._topic.stable())

    def last_stable_offset(self, _: Any) -> int:
        """As of the last fetch."""
        return self._topic.stable()

    def highwater(self, _: Any) -> int:
        """The end, open transactions included."""
        return self._topic.end

    async def getmany(self, partition: Any, *, timeout_ms: int, max_records: int) -> dict[Any, list[FakeRecord]]:
        """What is visible from here on, or nothing after a while."""
        self._answer()
        if not self._topic.beginning <= self._at <= self._topic.end:
            raise OffsetOutOfRangeError({partition: self._at})
        await asyncio.sleep(0)
        if self._at >= self._topic.stable() or self._topic.fetches_left == 0:
            self._topic.wrote.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._topic.wrote.wait()
            return {}
        if self._topic.fetches_left is not None:
            self._topic.fetches_left -= 1
        stable = self._topic.stable()
        waiting = [record for record in self._topic.records if self._at <= record.offset < stable]
        found = waiting[: min(max_records, self._topic.fetch_at_most)]
        self._at = stable if len(found) == len(waiting) else found[-1].offset + 1
        return {partition: found}

    def _answer(self) -> None:
        if self._topic.away:
            raise KafkaConnectionError
