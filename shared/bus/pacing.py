"""A consumer that does not spin on brokers that answer an empty fetch at once.

Kafka holds a fetch back until there is data or `fetch_max_wait_ms` has passed. The embedded broker answers at once,
so that each consumer would ask two thousand times a second. Here an empty answer that came early is delayed: a
little at first, up to `LONGEST_S` when nothing happens. Towards Apache Kafka this never acts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest

EARLY_S = 0.1
"""An empty answer that took at least this long was held back by the broker itself."""

SHORTEST_S = 0.001
LONGEST_S = 0.015

Send = Callable[..., Awaitable[Any]]


class PacedConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's consumer with a client that paces empty fetches."""

    def __init__(self, *topics: str, **arguments: Any) -> None:
        """Take the arguments of `AIOKafkaConsumer`."""
        super().__init__(*topics, **arguments)
        self._client.send = paced(self._client.send)


def paced(send: Send) -> Send:
    """`send` of one client, delaying early empty answers to fetches."""
    delay_s = SHORTEST_S

    async def paced_send(node_id: Any, request: Any, **options: Any) -> Any:
        nonlocal delay_s
        if not isinstance(request, FetchRequest):
            return await send(node_id, request, **options)
        asked_at = time.monotonic()
        response = await send(node_id, request, **options)
        if not _is_empty(response):
            delay_s = SHORTEST_S
        elif time.monotonic() - asked_at < EARLY_S:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, LONGEST_S)
        return response

    return paced_send


def _is_empty(response: Any) -> bool:
    """True when no partition brought bytes or an error."""
    return all(
        not error_code and not rest[-1] for _, partitions in response.topics for _, error_code, *rest in partitions
    )
