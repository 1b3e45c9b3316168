"""Reading the replica's topics as anybody can who knows only the published contracts."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.bus.cloudevents import Message, decode, received
from shared.bus.connection import KafkaSettings
from shared.events.access import FIRST_PREV, AccessRecord


@dataclass(slots=True)
class Reader:
    """Everything that is in a topic."""

    consumer: AIOKafkaConsumer
    partitions: list[TopicPartition]

    async def all(self) -> list[Message]:
        """All messages, from the beginning of every partition to its present end."""
        await self.consumer.seek_to_beginning(*self.partitions)
        ends = await self.consumer.end_offsets(self.partitions)
        found: list[Message] = []
        while any([await self.consumer.position(one) < ends[one] for one in self.partitions]):
            for records in (await self.consumer.getmany(*self.partitions, timeout_ms=200)).values():
                found += map(received, records)
        return found


@contextlib.asynccontextmanager
async def reading(kafka: KafkaSettings, topic: str) -> AsyncIterator[Reader]:
    """A reader of all partitions of `topic`, without a group."""
    consumer = kafka.consumer(topic)
    try:
        await consumer.start()
        partitions = sorted(consumer.assignment())
        assert partitions, f"{topic} is not there"
        yield Reader(consumer, partitions)
    finally:
        await consumer.stop()


def streams(messages: list[Message]) -> dict[str, list[AccessRecord]]:
    """Access records by stream; every stream is numbered without gaps, chained, and in one partition."""
    by_stream: dict[str, list[Message]] = {}
    for message in messages:
        by_stream.setdefault(message.key or "", []).append(message)
    read = {}
    for stream, told in by_stream.items():
        told.sort(key=lambda message: message.offset)
        records = [decode(message, AccessRecord) for message in told]
        assert [record.n for record in records] == list(range(len(records)))
        assert records[0].prev == FIRST_PREV
        for before, record in itertools.pairwise(range(len(records))):
            assert records[record].prev == hashlib.sha256(told[before].value).hexdigest()
        assert len({message.partition for message in told}) == 1
        assert all(message.event_id == record.id for message, record in zip(told, records, strict=True))
        read[stream] = records
    return read
