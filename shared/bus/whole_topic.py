"""Reading every message of a single-partition topic, without a consumer group.

The reader assigns and seeks by itself, keeps its own position, reconnects with growing delays, and never skips: if
the broker no longer has what comes next, it says `Restarted`, which means drop everything and start over. A topic
that got a second partition has lost its order for good: the reader stops with `OrderLost` and stays broken.

A denied `assign` is silent in Kafka's protocol, so opening checks that the topic's metadata can be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from shared.bus.cloudevents import Message, received
from shared.bus.connection import KafkaSettings, disconnect
from shared.errors import KeyfobError, Unavailable, cut

log = structlog.get_logger()

POLL_S = 0.2
"""Longest wait of one fetch; bounds how late a position moves over records that nobody can see."""

BATCH_MESSAGES = 5_000
"""Messages handed out at once: about a tenth of a second of work, then others have their turn."""

METADATA_AGE_MS = 3_000
"""How old the knowledge of the topic's partitions may be."""

BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class OrderLost(KeyfobError):
    """Raised when an ordered topic has more than one partition: nothing read from it can be trusted again."""

    kind: ClassVar[str] = "order-lost"
    title: ClassVar[str] = "An ordered topic was given more partitions"


@dataclass(frozen=True, slots=True)
class FromBeginning:
    """Start with the oldest record that is kept."""


@dataclass(frozen=True, slots=True)
class FromEnd:
    """Start behind the newest record at the moment of opening, or `back` offsets before it."""

    back: int = 0


@dataclass(frozen=True, slots=True)
class FromOffset:
    """Start with this offset, which somebody noted earlier."""

    offset: int


Start = FromBeginning | FromEnd | FromOffset


@dataclass(frozen=True, slots=True)
class Batch:
    """What one fetch brought; possibly no message, when the position only moved over markers.

    `position` is the next offset; `at_end` tells that nothing committed lay behind it at the time of the fetch.
    """

    messages: tuple[Message, ...]
    position: int
    at_end: bool


@dataclass(frozen=True, slots=True)
class Restarted:
    """The broker no longer has what comes next: everything read so far must be dropped."""

    reason: str
    position: int


Read = Batch | Restarted


class WholeTopicReader:
    """One reader of one ordered topic. Not for sharing between tasks, except `end_offset` and the properties."""

    def __init__(self, kafka: KafkaSettings, topic: str, *, start: Start = FromBeginning()) -> None:
        self.topic = topic
        self._kafka = kafka
        self._start = start
        self._partition = TopicPartition(topic, 0)
        self._consumer: AIOKafkaConsumer | None = None
        self._position: int | None = None
        self._told: int | None = None
        self._failures = 0
        self._trouble: str | None = "not connected yet"
        self._broken: OrderLost | None = None

    @property
    def position(self) -> int:
        """The next offset that will be read; -1 before the topic was opened."""
        return -1 if self._position is None else self._position

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read now, safe to show; None when all is well."""
        return self._trouble

    async def open(self) -> int:
        """Connect, trying until it works, and return the position from which this reader goes on.

        Raises `OrderLost`. Cancel it to give up; `trouble` says what is in the way.
        """
        if self._broken is not None:
            raise self._broken
        while self._consumer is None:
            consumer: AIOKafkaConsumer = self._new_consumer()
            try:
                await consumer.start()
                await self._seek(consumer)
                self._consumer = consumer
            except (KafkaError, OSError, Unavailable, TimeoutError) as error:
                await disconnect(consumer)
                await self._back_off(error)
            # Cancelled, or a mistake of ours: a consumer that was started is not left behind, its tasks would live on.
            except BaseException:
                await disconnect(consumer)
                raise
        self._trouble = None
        return self.position

    async def close(self) -> None:
        """Let go of the connection; opening again goes on at the same position."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await disconnect(consumer)

    async def end_offset(self) -> int:
        """The offset behind the last committed record, asked from the broker now.

        Raises `Unavailable` when not connected, `OrderLost` when the topic grew, and aiokafka's errors.
        """
        if self._consumer is None:
            raise Unavailable(self._trouble or "not connected")
        self._check_partitions(self._consumer)
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets([self._partition])
        return ends[self._partition]

    async def __aiter__(self) -> AsyncIterator[Read]:
        """All batches from the start, for ever; raises only `OrderLost`."""
        while True:
            await self.open()
            try:
                read = await self._fetch()
            except OffsetOutOfRangeError:
                yield await self._restart()
            except (KafkaError, OSError, TimeoutError, Unavailable) as error:
                await self.close()
                await self._back_off(error)
            else:
                if read is not None:
                    yield read

    async def _fetch(self) -> Batch | None:
        consumer = self._consumer
        if consumer is None:
            raise Unavailable("closed")
        self._check_partitions(consumer)
        # In each round: records may already be going to a second partition, where nobody reads them.
        found = await consumer.getmany(self._partition, timeout_ms=int(POLL_S * 1000), max_records=BATCH_MESSAGES)
        # Asked, and not taken from the last record: markers and what compaction removed move it too.
        position: int = await consumer.position(self._partition)
        self._failures = 0
        self._trouble = None
        if position == self._told:
            return None
        self._position = self._told = position
        records: list[Any] = found.get(self._partition, [])
        return Batch(tuple(map(received, records)), position, position >= self._visible_end(consumer))

    def _visible_end(self, consumer: AIOKafkaConsumer) -> int:
        # Without an answer yet the high watermark stands in: it is never before the last stable offset, so that
        # `at_end` can only come late.
        stable: int | None = consumer.last_stable_offset(self._partition)
        if stable is not None and stable >= 0:
            return stable
        return int(consumer.highwater(self._partition) or 0)

    async def _restart(self) -> Restarted:
        lost = self.position
        # What somebody noted is gone, and asking for it again would fail again.
        if isinstance(self._start, FromOffset):
            self._start = FromBeginning()
        self._position = self._told = None
        await self.close()
        log.error("topic-restarted", topic=self.topic, lost_position=lost)
        position = await self.open()
        return Restarted(f"the broker no longer has offset {lost}", position)

    def _new_consumer(self) -> AIOKafkaConsumer:
        # "none": where the broker lost our position it must say so, and not go on silently at another one.
        consumer = self._kafka.consumer(auto_offset_reset="none", metadata_max_age_ms=METADATA_AGE_MS)
        consumer.assign([self._partition])
        return consumer

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        self._check_partitions(consumer)
        if self._position is None:
            # Only once: after a reconnect the reader goes on where it was, wherever the end is by then.
            self._position = await self._first_position(consumer)
        consumer.seek(self._partition, self._position)

    async def _first_position(self, consumer: AIOKafkaConsumer) -> int:
        match self._start:
            case FromOffset(offset):
                return offset
            case FromEnd(back):
                ends: dict[TopicPartition, int] = await consumer.end_offsets([self._partition])
                beginning = await self._beginning(consumer) if back else 0
                return max(ends[self._partition] - back, beginning)
            case _:
                return await self._beginning(consumer)

    async def _beginning(self, consumer: AIOKafkaConsumer) -> int:
        beginnings: dict[TopicPartition, int] = await consumer.beginning_offsets([self._partition])
        return beginnings[self._partition]

    def _check_partitions(self, consumer: AIOKafkaConsumer) -> None:
        if self._broken is not None:
            raise self._broken
        partitions = consumer.partitions_for_topic(self.topic)
        if not partitions:
            raise Unavailable(f"{self.topic}: missing, or we may not read its metadata")
        if len(partitions) > 1:
            self._broken = OrderLost(f"{self.topic} has {len(partitions)} partitions, its order needs exactly 1")
            self._trouble = self._broken.detail
            raise self._broken

    async def _back_off(self, error: Exception) -> None:
        delay = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        self._failures += 1
        self._trouble = f"{self.topic}: broker down, or wrong credentials: {cut(error)}"
        log.warning("topic-unreadable", topic=self.topic, error=cut(error), retry_after_s=delay)
        await asyncio.sleep(delay)
