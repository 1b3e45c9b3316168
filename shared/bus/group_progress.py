"""How far a consumer group has come in a topic, asked from outside the group."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.bus.connection import KafkaSettings, disconnect
from shared.errors import Unavailable

STOP_WITHIN_S: Final = 3.0

R = TypeVar("R")


class GroupProgress:
    """Each question opens connections of its own: for looks every few seconds, not for a hot path."""

    def __init__(self, kafka: KafkaSettings, *, topic: str, group: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._group = group

    async def ends(self) -> Mapping[int, int]:
        """The offset behind the newest committed message of each partition. Raises `Unavailable`."""
        return await _whole(self._ends())

    async def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether the group has settled everything before these offsets. Raises `Unavailable`."""
        at = await _whole(self._kept())
        # Where the group kept nothing it has not begun.
        return all(at.get(partition, 0) >= end for partition, end in ends.items())

    async def _ends(self) -> dict[int, int]:
        consumer = self._kafka.consumer(self._topic, group_id=None)
        try:
            await consumer.start()
            ends: dict[TopicPartition, int] = await consumer.end_offsets(list(consumer.assignment()))
            if not ends:
                # Every group has reached the ends of no partitions at all: that would prove anything.
                raise Unavailable(f"{self._topic}: no partition in sight")
            return {partition.partition: end for partition, end in ends.items()}
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self._topic}: its end is not known: {type(error).__name__}") from error
        finally:
            await disconnect(consumer)

    async def _kept(self) -> dict[int, int]:
        admin = AIOKafkaAdminClient(**self._kafka.client())
        try:
            await admin.start()
            kept = await admin.list_consumer_group_offsets(self._group)
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self._group}: its position is not known: {type(error).__name__}") from error
        finally:
            await admin.close()
        return {one.partition: said.offset for one, said in kept.items() if one.topic == self._topic}


async def _whole(question: Coroutine[Any, Any, R]) -> R:
    """Ask, and even when we are cancelled let the question come to its end: aiokafka forgets half-open connections."""
    task = asyncio.ensure_future(question)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=STOP_WITHIN_S)
        task.cancel()
        raise
