"""Reading every partition of a topic whose keys are spread, without a consumer group.

For readers that need all messages in memory, each replica for itself, such as the newest receipt of every member. The
order is that of each key. Partitions may be added at any time and are read as well. Nothing is committed: a reader
starts at a moment in time that is early enough for what it must know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.bus.cloudevents import Message, received
from shared.bus.connection import KafkaSettings, disconnect
from shared.errors import Unavailable, cut

log = structlog.get_logger()

POLL_S = 0.2
RETRY_AFTER_S = 0.5
ASK_WITHIN_S = 2.0

Take = Callable[[tuple[Message, ...]], Awaitable[None]]


class SpreadTopicReader:
    """One reader of one topic; `caught_up` may be asked from other tasks."""

    def __init__(self, kafka: KafkaSettings, topic: str, *, since: datetime) -> None:
        self.topic = topic
        self._kafka = kafka
        self._since_ms = int(since.timestamp() * 1000)
        self._consumer: AIOKafkaConsumer | None = None
        self._handed: dict[TopicPartition, int] = {}
        self._moved = asyncio.Event()
        self._trouble: str | None = "not connected yet"

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read now, safe to show; None when all is well."""
        return self._trouble

    async def run(self, take: Take) -> None:
        """Hand out batches for ever, each taken in before it counts as read; reconnects by itself, repeating a little.

        A function and not an iterator: whoever is cancelled while it takes in leaves an iterator open, and with it a
        connection.
        """
        while True:
            # A partition that is added must not stay unread for as long as metadata is usually kept.
            consumer = self._kafka.consumer(self.topic, group_id=None, metadata_max_age_ms=3_000)
            try:
                # Not `connect`, which starts the same one again: aiokafka can't where its start failed half-way.
                await consumer.start()
                await self._seek(consumer)
                self._consumer, self._trouble = consumer, None
                await self._follow(consumer, take)
            except (KafkaError, OSError, TimeoutError) as error:
                self._trouble = f"{self.topic}: broker down, or wrong credentials: {cut(error)}"
                log.warning("topic-unreadable", topic=self.topic, error=cut(error))
            finally:
                self._consumer = None
                await disconnect(consumer)
            await asyncio.sleep(RETRY_AFTER_S)

    async def caught_up(self, *, within_s: float = ASK_WITHIN_S) -> None:
        """Return once everything that was in the topic when this was asked has been handed out and taken in.

        Raises `Unavailable` when that can't be said within `within_s` seconds.
        """
        try:
            async with asyncio.timeout(within_s):
                consumer = self._consumer
                if consumer is None:
                    raise Unavailable(self._trouble or "not connected")
                ends = await consumer.end_offsets(list(consumer.assignment()))
                if not ends:
                    # While the topic is missing from the metadata nothing is assigned, and nothing is proved by that.
                    raise Unavailable(f"{self.topic}: no partition in sight")
                while any(self._handed.get(partition, 0) < end for partition, end in ends.items()):
                    self._moved.clear()
                    await self._moved.wait()
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self.topic}: its end is not known or not reached: {type(error).__name__}") from error

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        """To where we were, or for a partition that is new to us to the first message of the wanted time."""
        partitions = consumer.assignment()
        found = await consumer.offsets_for_times(dict.fromkeys(partitions, self._since_ms))
        ends = await consumer.end_offsets(list(partitions))
        for partition in partitions:
            at = found.get(partition)
            # No message is so young: then the next one is the first.
            first = ends[partition] if at is None else at.offset
            self._handed[partition] = self._handed.get(partition, first)
            consumer.seek(partition, self._handed[partition])

    async def _follow(self, consumer: AIOKafkaConsumer, take: Take) -> None:
        while True:
            found = await consumer.getmany(timeout_ms=int(POLL_S * 1000))
            messages = tuple(received(record) for records in found.values() for record in records)
            if messages:
                await take(messages)
            # Behind it: what was handed out is not yet taken in.
            for partition in consumer.assignment():
                self._handed[partition] = await consumer.position(partition)
            self._moved.set()
