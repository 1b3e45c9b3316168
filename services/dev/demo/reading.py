"""Reads topics whole, as anybody could: a plain consumer without a group, from the first offset to the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer


async def topic_names(bootstrap: str) -> list[str]:
    """All topics of the broker."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        return sorted(await consumer.topics())
    finally:
        await consumer.stop()


async def read_topic(bootstrap: str, topic: str, *, committed: bool) -> AsyncIterator[Any]:
    """Every record of every partition, up to the end as it is now; with `committed`, without aborted ones."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    await consumer.start()
    try:
        partitions = sorted(consumer.assignment())
        if not partitions:
            raise LookupError(f"{topic} has no partitions that we may read")
        ends = await consumer.end_offsets(partitions)
        # A list: `await` makes a generator asynchronous, which any() does not take. And by position, not by what came:
        # markers of transactions have offsets too, and no reader is given one.
        while any([await consumer.position(where) < ends[where] for where in partitions]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                for record in batch:
                    yield record
    finally:
        await consumer.stop()
