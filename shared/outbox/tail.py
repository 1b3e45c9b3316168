"""The newest commit that a service's topic holds, read from its end.

Compaction keeps the newest record of every key, and every commit writes at least one, so the newest commit of a
service always has a record in its topic of state. Markers and records that are not ours are stepped over.

A service that keeps a log instead of state writes all of it under one key, and so into one partition.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from shared.bus.cloudevents import Message, received
from shared.bus.connection import KafkaSettings, disconnect
from shared.errors import Unavailable

FIRST_STEP = 64
"""Offsets looked at first; each further look goes four times as far."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest commit in a topic; `seq` 0 and no id when there is none."""

    seq: int
    commit_id: uuid.UUID | None
    expired: bool = False
    """There were messages once, and the log keeps none for so long: nothing can be said, and nothing is wrong."""


EMPTY = Tail(0, None)
EXPIRED = Tail(0, None, expired=True)


async def read_tail(kafka: KafkaSettings, topic: str, *, within_s: float, log_key: str | None = None) -> Tail:
    """Read the newest commit of `topic`, of the partition of `log_key` where a log is kept under one key.

    Raises `Unavailable`, `TimeoutError` or aiokafka's errors.
    """
    consumer: AIOKafkaConsumer = kafka.consumer(auto_offset_reset="none")
    consumer.assign([TopicPartition(topic, 0)])
    try:
        async with asyncio.timeout(within_s):
            await consumer.start()
            partition = _partition(topic, consumer.partitions_for_topic(topic) or set(), log_key)
            consumer.assign([partition])
            tail, end = await _search(consumer, partition)
            # State does not expire: a topic of state that once held something and is empty has lost it.
            return EXPIRED if tail == EMPTY and end > 0 and log_key is not None else tail
    finally:
        await disconnect(consumer)


def _partition(topic: str, partitions: set[int], log_key: str | None) -> TopicPartition:
    if log_key is None:
        if partitions != {0}:
            raise Unavailable(f"{topic}: missing, not permitted, or more than one partition")
        return TopicPartition(topic, 0)
    if not partitions:
        raise Unavailable(f"{topic}: missing or not permitted")
    numbers = sorted(partitions)
    return TopicPartition(topic, DefaultPartitioner()(log_key.encode(), numbers, numbers))


async def _search(consumer: AIOKafkaConsumer, partition: TopicPartition) -> tuple[Tail, int]:
    """The tail, and the offset at which the partition ends."""
    beginning: int = (await consumer.beginning_offsets([partition]))[partition]
    end: int = (await consumer.end_offsets([partition]))[partition]
    # The end stands still: earlier relays are fenced, and ours publishes nothing before this is read.
    upper, step = end, FIRST_STEP
    while upper > beginning:
        lower = max(beginning, upper - step)
        found = [tail for message in await _between(consumer, partition, lower, upper) if (tail := tail_of(message))]
        if found:
            return max(found, key=lambda tail: tail.seq), end
        upper, step = lower, step * 4
    return EMPTY, end


async def _between(consumer: AIOKafkaConsumer, partition: TopicPartition, lower: int, upper: int) -> list[Message]:
    consumer.seek(partition, lower)
    messages: list[Message] = []
    # By position: a stretch of markers, or of what was compacted away, brings no record at all.
    while await consumer.position(partition) < upper:
        batch = await consumer.getmany(partition, timeout_ms=100)
        messages += [received(record) for record in batch.get(partition, ()) if record.offset < upper]
    return messages


def tail_of(message: Message) -> Tail | None:
    """The commit that a message belongs to, or None when it says none."""
    try:
        return Tail(int(message.header("ce_commitseq") or ""), uuid.UUID(message.header("ce_commitid") or ""))
    except ValueError:
        return None
