"""Access records: numbered without gaps, chained, durable before anything rests on them.

One batch is under way at a time; what is said meanwhile waits for the next one (a group commit, so 64 callers cost a
handful of requests to the broker). Numbers are given when a batch is made, in order, so a record that was given up
while it waited leaves no hole. What a batch under way becomes is for the idempotent producer: it repeats until the
broker answers. A caller whose deadline passes meanwhile is refused, and voids its record with an `abandoned` one
behind it. When the producer fails for good, nobody knows how the stream ends: it is never continued, a new run with
a new producer begins, and outcomes that were under way are said again there (readers join them by resolution).

Deadlines are the callers'; `record_deadline_s` is applied in `durable`.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from services.resolver.entries import Entry, Headers
from shared import topics
from shared.bus.connection import connect, disconnect
from shared.errors import RecordFailed, cut
from shared.events.access import FIRST_PREV

_log = structlog.get_logger(__name__)

MOST_WAITING: Final = 20_000
"""Records that may wait for a broker that is away, some 2 KB each; beyond it callers are refused at once."""
MOST_IN_BATCH: Final = 500
FLUSH_WITHIN_S: Final = 2.0
OUTCOME_PAUSE_S: Final = 0.02
"""Nobody waits for an outcome: it goes with the next authorisation, or alone after this long.

A request to the broker costs more than all else in a resolve, and the next authorisation would wait behind it.
"""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a durable record stands; `hash` is the SHA-256 of its payload, in hex."""

    stream: str
    n: int
    hash: str


@dataclass(slots=True, eq=False)
class Draft:
    """A record on its way. `numbered` means that it may be, or come to be, in the topic."""

    entry: Entry
    kept: bool
    """Whether it outlives a failed stream: outcomes do, an authorisation that nobody waits for doesn't."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    done: asyncio.Future[Position] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    numbered: bool = False
    born: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class AccessLog(Protocol):
    """Where access records go."""

    def write(self, entry: Entry, *, kept: bool = False) -> Draft:
        """Say `entry` soon, without waiting. `kept`: even if nobody waits, and again in the next stream."""
        ...

    async def durable(self, draft: Draft) -> Position:
        """Wait for the record; `RecordFailed` when it isn't durable in time. A numbered one may still land."""
        ...


class _StreamLost(Exception):
    """The producer failed for good: what was under way is uncertain."""


@dataclass(slots=True)
class _Stream:
    """One run of one producer: the chain's head and the partition that it is in."""

    id: str
    partition: int
    n: int = 0
    prev: str = FIRST_PREV

    def next(self, draft: Draft) -> tuple[bytes, Headers, Position]:
        """The draft's payload, headers and position at the head of the chain, which moves on."""
        record_id = f"{self.id}/{self.n}"
        payload = draft.entry.payload(stream=self.id, n=self.n, prev=self.prev, at=draft.at)
        position = Position(self.id, self.n, hashlib.sha256(payload).hexdigest())
        self.n, self.prev = self.n + 1, position.hash
        return payload, draft.entry.headers(record_id=record_id, at=draft.at), position


class AccessRecorder:
    """The access records of one replica. `run` it as a task; it ends only when cancelled."""

    def __init__(
        self, new_producer: Callable[[], AIOKafkaProducer], *, replica_id: str, record_deadline_s: float
    ) -> None:
        self._new_producer = new_producer
        self._replica_id = replica_id
        self._deadline_s = record_deadline_s
        self._waiting: deque[Draft] = deque()
        self._under_way: Sequence[tuple[Draft, Position]] = ()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._later: asyncio.TimerHandle | None = None
        self._trouble: str | None = "not connected yet"

    @property
    def trouble(self) -> str | None:
        """Why nothing can be recorded now, for the readiness route; None when all is well."""
        return self._trouble

    def write(self, entry: Entry, *, kept: bool = False) -> Draft:
        """See `AccessLog`. When too many wait already the draft has failed at once."""
        draft = Draft(entry, kept)
        if len(self._waiting) >= MOST_WAITING and not self._forget_given_up():
            # Looked at here, or asyncio complains about a failure that nobody asked for.
            draft.done.set_exception(RecordFailed())
            draft.done.exception()
            return draft
        self._waiting.append(draft)
        # Somebody waits for an authorisation; the outcomes that lie here go with it.
        if not kept:
            self._wake.set()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(OUTCOME_PAUSE_S, self._wake_now)
        return draft

    def _wake_now(self) -> None:
        self._later = None
        self._wake.set()

    async def durable(self, draft: Draft) -> Position:
        """See `AccessLog`."""
        # The usual case: it became durable while the value was read, and a timeout would cost a timer for nothing.
        if draft.done.done():
            return draft.done.result()
        try:
            # From its birth and not from now: reading the value took part of the time that the caller has.
            async with asyncio.timeout_at(draft.born + self._deadline_s):
                return await draft.done
        except TimeoutError:
            # Takes it out of a batch that is not made yet; one under way may land, and the caller voids it.
            draft.done.cancel()
            raise RecordFailed from None

    async def run(self) -> None:
        """Publish for ever, one stream after the other."""
        while True:
            # A new one for each stream: the failed one may still believe that its sequence numbers go on.
            producer = self._new_producer()
            try:
                await connect(producer, what="access records")
                await self._one_stream(producer)
            except _StreamLost as lost:
                self._trouble = "the stream was lost, a new one begins"
                _log.error("access stream lost", error=cut(lost))
            finally:
                await disconnect(producer)

    async def flush(self) -> None:
        """Wait until everything said is durable, at most `FLUSH_WITHIN_S`: for a clean end."""
        try:
            async with asyncio.timeout(FLUSH_WITHIN_S):
                while self._waiting or self._under_way:
                    # Outcomes lie here without a wake-up, waiting for company: now none will come.
                    self._wake.set()
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            _log.warning("access records left behind", waiting=len(self._waiting) + len(self._under_way))

    def _forget_given_up(self) -> bool:
        """Make room by dropping drafts that nobody waits for any more."""
        # Only when the queue is full: going through it for each draft that was given up would cost more than it frees.
        self._waiting = deque(draft for draft in self._waiting if not draft.done.done() or draft.kept)
        return len(self._waiting) < MOST_WAITING

    async def _one_stream(self, producer: AIOKafkaProducer) -> None:
        stream = await self._open_stream(producer)
        self._trouble = None
        while True:
            if not self._waiting:
                self._idle.set()
            await self._wake.wait()
            # Cleared before the queue is looked at: what comes during the last batch wakes us again.
            self._wake.clear()
            while self._waiting:
                await self._publish_some(producer, stream)

    async def _open_stream(self, producer: AIOKafkaProducer) -> _Stream:
        # Random for each run: a restored machine never goes on with numbers that were used before.
        stream_id = f"access/{self._replica_id}/{uuid.uuid4().hex}"
        try:
            partitions = sorted(await producer.partitions_for(topics.ACCESS))
        except KafkaError as error:
            raise _StreamLost(cut(error)) from error
        # One partition for the whole stream, by the key as any Kafka client does it: only there is its order kept.
        return _Stream(stream_id, DefaultPartitioner()(stream_id.encode(), partitions, partitions))

    async def _publish_some(self, producer: AIOKafkaProducer, stream: _Stream) -> None:
        batch = producer.create_batch()
        self._under_way = self._fill(batch, stream)
        # All of them were given up while they waited: a batch without records is not sent.
        if not self._under_way:
            return
        try:
            # A batch of our own and not `send`: only so is it certain that records land together and in this order.
            acknowledged = await producer.send_batch(batch, topics.ACCESS, partition=stream.partition)
            await acknowledged
        except KafkaError as error:
            self._give_up()
            raise _StreamLost(cut(error)) from error
        for draft, position in self._under_way:
            if not draft.done.done():
                draft.done.set_result(position)
        self._under_way = ()

    def _fill(self, batch: Any, stream: _Stream) -> list[tuple[Draft, Position]]:
        """Number the waiting drafts into `batch` until it is full; those given up meanwhile get no number."""
        filled: list[tuple[Draft, Position]] = []
        key = stream.id.encode()
        while self._waiting and len(filled) < MOST_IN_BATCH:
            draft = self._waiting.popleft()
            # Given up before it had a number: the chain never knew it, and no hole is left.
            if draft.done.done() and not draft.kept:
                continue
            before = stream.n, stream.prev
            payload, headers, position = stream.next(draft)
            # aiokafka takes the first record of a batch whatever its size, so each batch gets somewhere.
            if batch.append(timestamp=None, key=key, value=payload, headers=headers) is None:
                # It did not fit: the next batch gives it the same number.
                stream.n, stream.prev = before
                self._waiting.appendleft(draft)
                break
            # From here on it may land, whatever becomes of the batch: giving it up needs an `abandoned` behind it.
            draft.numbered = True
            filled.append((draft, position))
        batch.close()
        return filled

    def _give_up(self) -> None:
        """Nobody knows whether these landed: outcomes are said again in the next stream, the others have failed."""
        # Backwards, each to the front: they keep their order, before everything that waited behind them.
        for draft, _ in reversed(self._under_way):
            if draft.kept:
                self._waiting.appendleft(draft)
            elif not draft.done.done():
                draft.done.set_exception(RecordFailed())
                draft.done.exception()
        # The next stream says them again by itself, also if nobody writes anything more.
        self._under_way = ()
        self._wake.set()
