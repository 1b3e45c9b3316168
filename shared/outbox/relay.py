"""The relay: publishes the commits of one service in their order, each exactly once.

One relay per service works at a time, by a PostgreSQL advisory lock on a connection of its own. It publishes whole
commits in Kafka transactions under one fixed `transactional.id`. That id is the real guard: whoever initialises it
fences every earlier holder, so a relay that stalled, lost its lock unknowingly and wakes up late publishes nothing.

After any start it reads from the topic what was last published and goes on right behind it. So neither a crash
between the Kafka commit and the deletion here, nor a commit whose outcome stayed unknown, ever publishes twice.
It refuses, and says why, when database and topic can't belong together (see `continuation`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, KafkaError
from sqlalchemy import URL

from shared.bus.connection import KafkaSettings, disconnect
from shared.errors import Unavailable, cut
from shared.outbox.continuation import Continue, Refuse, judge
from shared.outbox.store import OutboxDamaged, OutboxStore, StoredCommit
from shared.outbox.tables import channel
from shared.outbox.tail import read_tail

log = structlog.get_logger()

NET_S = 1.0
"""Longest sleep between looks at the outbox, should a notification get lost."""

LOCK_RETRY_S = 0.25
PUBLISH_WITHIN_S = 10.0
TAIL_WITHIN_S = 20.0
TIDY_EVERY_S = 0.2
BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
TRANSACTION_TIMEOUT_MS = 10_000
"""After this the broker ends a transaction whose relay vanished, so that readers are not held up."""


@dataclass(frozen=True, slots=True)
class Starting:
    """Connecting, or waiting to try again: `reason` says for what."""

    reason: str


@dataclass(frozen=True, slots=True)
class Standby:
    """Another replica's relay is at work."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """This relay is at work."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Database and topic do not belong together: nothing is published until somebody decides."""

    reason: str


RelayState = Starting | Standby | Publishing | Refused


class _LostDatabase(Exception):
    """The connection that holds the lock is gone."""


class Relay:
    """The relay of one service. `run` it as a task; `state`, `ready`, `reason` and `published_seq` say how it is."""

    def __init__(
        self, *, database: URL, schema: str, kafka: KafkaSettings, state_topic: str, log_key: str | None = None
    ) -> None:
        """`state_topic` has a record of every commit; with `log_key`, all of them are under that one key."""
        self._dsn = database.set(drivername="postgresql").render_as_string(hide_password=False)
        self._schema = schema
        self._kafka = kafka
        self._state_topic = state_topic
        self._log_key = log_key
        self._wake = asyncio.Event()
        self._failures = 0
        self.state: RelayState = Starting("not started")
        self.published_seq = 0

    @property
    def ready(self) -> bool:
        """True while this relay, or another one, publishes."""
        return isinstance(self.state, Publishing | Standby)

    @property
    def reason(self) -> str | None:
        """Why it is not ready, safe to show."""
        match self.state:
            case Starting(reason) | Refused(reason):
                return reason
            case _:
                return None

    async def run(self) -> None:
        """Publish for ever; cancel to stop. Every trouble leads back to the start: lock, fence, tail."""
        while True:
            try:
                await self._with_database()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, _LostDatabase, TimeoutError) as error:
                await self._pause(f"database: {type(error).__name__} {cut(error)}")
            except (KafkaError, IllegalOperation, Unavailable) as error:
                await self._pause(f"broker: {type(error).__name__} {cut(error)}")

    async def _pause(self, reason: str) -> None:
        delay = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
        self._failures += 1
        self.state = Starting(reason)
        log.warning("relay-interrupted", schema=self._schema, reason=reason, retry_after_s=delay)
        await asyncio.sleep(delay)

    async def _with_database(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=10)
        lost = asyncio.Event()
        # Told by the connection itself: while we publish, no statement of ours would notice.
        connection.add_termination_listener(lambda _: lost.set())
        try:
            store = OutboxStore(connection, self._schema)
            work = asyncio.create_task(self._hold_lock(store, connection))
            await _until_lost(work, lost)
        finally:
            # Not `close`, which waits for an answer: only the end of the connection lets go of the lock.
            connection.terminate()

    async def _hold_lock(self, store: OutboxStore, connection: asyncpg.Connection) -> None:
        # Before the first look at the outbox: a commit in between would wake nobody.
        await connection.add_listener(channel(self._schema), lambda *_: self._wake.set())
        while not await store.try_lock():
            self.state = Standby()
            await asyncio.sleep(LOCK_RETRY_S)
        self.state = Starting("fencing earlier relays")
        producer = self._kafka.producer(
            transactional_id=f"keyfob-relay-{self._schema}", transaction_timeout_ms=TRANSACTION_TIMEOUT_MS
        )
        try:
            async with _broker_answers(within_s=TAIL_WITHIN_S):
                # This fences whoever held the id before: from here on they publish nothing.
                await producer.start()
            await self._publish_all(store, producer)
        finally:
            await disconnect(producer)

    async def _publish_all(self, store: OutboxStore, producer: AIOKafkaProducer) -> None:
        # Behind the fence, for up to it an earlier relay may have published.
        async with _broker_answers(within_s=TAIL_WITHIN_S):
            tail = await read_tail(self._kafka, self._state_topic, within_s=TAIL_WITHIN_S, log_key=self._log_key)
        match judge(tail, await store.counters(), await store.commit_id(tail.seq)):
            case Refuse(reason):
                await self._refuse(store, reason)
            case Continue(published_seq):
                self.published_seq = published_seq
                self.state = Publishing()
                self._failures = 0
                log.info("relay-publishing", schema=self._schema, after_seq=published_seq)
                await self._follow(store, producer)

    async def _follow(self, store: OutboxStore, producer: AIOKafkaProducer) -> None:
        tidied, loop = self.published_seq - 1, asyncio.get_running_loop()
        tidy_at = loop.time()
        while True:
            # Before the look: a commit that comes during it sets it again.
            self._wake.clear()
            try:
                commits = await store.commits_after(self.published_seq)
            except OutboxDamaged as error:
                return await self._refuse(store, error.detail)
            following = _without_holes(commits, after=self.published_seq)
            if commits and not following:
                missing = f"commit {self.published_seq + 1} left nothing in the outbox, {commits[0].seq} did"
                return await self._refuse(store, missing)
            if following:
                await publish_commits(producer, following)
                self.published_seq = following[-1].seq
            # Not after each batch: what is left here after a crash is found in the topic, and costs nothing.
            if tidied != self.published_seq and (not commits or loop.time() >= tidy_at):
                await store.forget_through(self.published_seq)
                tidied, tidy_at = self.published_seq, loop.time() + TIDY_EVERY_S
            if not commits:
                await self._sleep()

    async def _sleep(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NET_S):
                await self._wake.wait()

    async def _refuse(self, store: OutboxStore, reason: str) -> None:
        """Hold the lock and publish nothing, until an operator decides and restarts the service."""
        self.state = Refused(reason)
        log.critical("relay-refuses", schema=self._schema, reason=reason)
        while True:
            await asyncio.sleep(NET_S)
            # Only to notice when the connection, and with it the lock, is gone.
            await store.counters()


def _without_holes(commits: list[StoredCommit], *, after: int) -> list[StoredCommit]:
    return [commit for number, commit in enumerate(commits, after + 1) if commit.seq == number]


@contextlib.asynccontextmanager
async def _broker_answers(*, within_s: float) -> AsyncIterator[None]:
    """Call a timeout what it is: it was not the database that did not answer."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise Unavailable(f"no answer within {within_s:g} s") from None


async def publish_commits(producer: AIOKafkaProducer, commits: list[StoredCommit]) -> None:
    """Publish whole commits in one Kafka transaction, in order.

    Any error, `Unavailable` for a timeout, leaves the outcome unknown: close the producer and start from the tail.
    """
    async with _broker_answers(within_s=PUBLISH_WITHIN_S):
        sent = await _send_all(producer, commits)
    # The transaction may count as committed while a message of it was refused: then it is a failure all the same.
    for delivery in sent:
        delivery.result()


async def _send_all(producer: AIOKafkaProducer, commits: list[StoredCommit]) -> list[asyncio.Future[Any]]:
    await producer.begin_transaction()
    sent: list[asyncio.Future[Any]] = []
    for message in (message for commit in commits for message in commit.messages):
        key = (message.key or "").encode()
        delivery = await producer.send(message.topic, message.value, key, headers=list(message.headers))
        delivery.add_done_callback(_seen)
        sent.append(delivery)
    await producer.commit_transaction()
    return sent


def _seen(delivery: asyncio.Future[Any]) -> None:
    """Take note of a failure that the transaction reports anyway, so that asyncio does not complain later."""
    if not delivery.cancelled():
        delivery.exception()


async def _until_lost(work: asyncio.Task[None], lost: asyncio.Event) -> None:
    """Do the work until it ends, but stop it at once when the connection is lost."""
    watch = asyncio.create_task(lost.wait())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watch.cancel()
        if not work.done():
            work.cancel()
        await asyncio.wait({work, watch})
    if lost.is_set():
        # What the work failed with is a consequence of that, and is looked at only so that asyncio does not complain.
        if not work.cancelled():
            work.exception()
        raise _LostDatabase
    work.result()
