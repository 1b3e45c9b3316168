"""A consumer that bears with brokers that follow the protocol less closely than Apache Kafka.

Two things are mended here, in one place; towards Apache Kafka neither ever acts.

1. Kafka holds a fetch back until there is data or `fetch_max_wait_ms` has passed. The embedded broker answers at
   once, so that each consumer would ask two thousand times a second. An empty answer that came early is delayed: a
   little at first, up to `LONGEST_S` when nothing happens.
2. With a fetch of committed records comes a list of aborted transactions (producer, first offset), and a client drops
   the producer's records from there to its next abort marker. Kafka lists only transactions that reach into the
   fetched range. The embedded broker lists all that ever were, also those whose marker lies before the range, and a
   client then silently drops *committed* records of that producer. An entry from before the range is therefore
   believed only if the producer's first marker within the range is not a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.control_record import COMMIT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

EARLY_S = 0.1
"""An empty answer that took at least this long was held back by the broker itself."""

SHORTEST_S = 0.001
LONGEST_S = 0.015

Send = Callable[..., Awaitable[Any]]
AbortedTransaction = tuple[int, int]
"""Producer id and first offset."""


class MendingConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's consumer, behind a client that paces empty fetches and corrects lists of aborted transactions."""

    def __init__(self, *topics: str, **arguments: Any) -> None:
        """Take the arguments of `AIOKafkaConsumer`."""
        super().__init__(*topics, **arguments)
        self._client.send = mended(self._client.send)

    async def stop(self) -> None:
        """Leave the group and disconnect, also where aiokafka fails or is cancelled half-way."""
        try:
            await super().stop()
        finally:
            # Both may be closed twice.
            if self._fetcher is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._fetcher.close()
            await self._client.close()


def mended(send: Send) -> Send:
    """`send` of one client, with what the module says done to the answers of fetches."""
    delay_s = SHORTEST_S

    async def mended_send(node_id: Any, request: Any, **options: Any) -> Any:
        nonlocal delay_s
        if not isinstance(request, FetchRequest):
            return await send(node_id, request, **options)
        asked_at = time.monotonic()
        response = await send(node_id, request, **options)
        fetched = tuple(_partitions_of(request, response))
        for part in fetched:
            if part.aborted:
                part.aborted[:] = still_aborted(part.aborted, part.records, fetched_from=part.fetched_from)
        if any(part.error or part.records for part in fetched):
            delay_s = SHORTEST_S
        elif time.monotonic() - asked_at < EARLY_S:
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 1.5, LONGEST_S)
        return response

    return mended_send


def still_aborted(aborted: list[AbortedTransaction], records: bytes, *, fetched_from: int) -> list[AbortedTransaction]:
    """The entries that a client may believe for these records, which begin at `fetched_from`."""
    if all(first_offset >= fetched_from for _, first_offset in aborted):
        return aborted
    committed = _first_marker_commits(records)
    return [entry for entry in aborted if entry[1] >= fetched_from or not committed.get(entry[0], False)]


def _first_marker_commits(records: bytes) -> dict[int, bool]:
    """For each producer whether its first marker in these records is a commit."""
    first: dict[int, bool] = {}
    batches = MemoryRecords(records)
    while batches.has_next():
        batch = batches.next_batch()
        if batch is not None and batch.is_control_batch and batch.producer_id not in first:
            first[batch.producer_id] = ControlRecord.parse(next(batch).key) == COMMIT_MARKER
    return first


@dataclass(frozen=True, slots=True)
class _Fetched:
    """One partition's part of an answer; `aborted` is the answer's own list."""

    error: int
    aborted: list[AbortedTransaction] | None
    records: bytes
    fetched_from: int


def _partitions_of(request: Any, response: Any) -> Iterator[_Fetched]:
    asked = {(topic, partition): offset for topic, partitions in request.topics for partition, offset, _ in partitions}
    for topic, partitions in response.topics:
        for partition, error, _highwater, *rest in partitions:
            aborted = rest[2] if response.API_VERSION >= 11 else rest[-2] if response.API_VERSION >= 4 else None  # noqa: PLR2004
            yield _Fetched(error, aborted, rest[-1], asked[topic, partition])
