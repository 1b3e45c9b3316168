"""The relay publishes what comes next and nothing else; where that is not certain it stops and says why."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, OutOfOrderSequenceNumber, ProducerFenced
from sqlalchemy import make_url
from structlog.testing import capture_logs

from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings
from shared.errors import Unavailable
from shared.outbox import relay as relay_module
from shared.outbox.continuation import Counters
from shared.outbox.relay import (
    Publishing,
    Refused,
    Relay,
    Standby,
    Starting,
    _LostDatabase,
    _until_lost,
    publish_commits,
)
from shared.outbox.store import OutboxDamaged, OutboxStore, StoredCommit
from shared.outbox.tail import EMPTY, Tail
from tests.waiting import until

CANARY = "hunter2-canary"


def commit(seq: int, *keys: str) -> StoredCommit:
    messages = tuple(Message(topic="t", key=key, value=b"v", headers=(("h", b"1"),)) for key in keys or ("k",))
    return StoredCommit(seq, messages)


@dataclass
class Producer:
    """A transactional producer that keeps what became visible."""

    steps: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    refusing: list[KafkaError] = field(default_factory=list)
    """What the broker answers to single messages, after the transaction was reported as committed."""

    failing: Exception | None = None
    hanging: bool = False
    deliveries: list[asyncio.Future[Any]] = field(default_factory=list)

    async def begin_transaction(self) -> None:
        self.steps.append("begin")

    async def send(self, topic: str, value: bytes, key: bytes, *, headers: Any) -> asyncio.Future[Any]:
        self.steps.append(key.decode())
        delivery = asyncio.get_running_loop().create_future()
        self.deliveries.append(delivery)
        return delivery

    async def commit_transaction(self) -> None:
        if self.hanging:
            await asyncio.Event().wait()
        if self.failing is not None:
            raise self.failing
        for delivery, step in zip(self.deliveries, [one for one in self.steps if one != "begin"], strict=True):
            if self.refusing:
                delivery.set_exception(self.refusing.pop())
            else:
                delivery.set_result(None)
                self.seen.append(step)
        self.steps, self.deliveries = [], []


def aiokafka(producer: Producer) -> AIOKafkaProducer:
    return cast("AIOKafkaProducer", producer)


class TestPublishing:
    async def test_whole_commits_go_out_in_one_transaction_and_in_order(self) -> None:
        producer = Producer()
        await publish_commits(aiokafka(producer), [commit(1, "a", "b"), commit(2, "c")])
        assert producer.seen == ["a", "b", "c"]

    async def test_a_message_that_was_refused_is_a_failure_of_the_whole(self) -> None:
        with pytest.raises(OutOfOrderSequenceNumber):
            await publish_commits(aiokafka(Producer(refusing=[OutOfOrderSequenceNumber()])), [commit(1, "a", "b")])

    async def test_a_broker_that_does_not_answer_costs_no_more_than_the_bound(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "PUBLISH_WITHIN_S", 0.01)
        with pytest.raises(Unavailable):
            await publish_commits(aiokafka(Producer(hanging=True)), [commit(1)])

    async def test_deliveries_of_a_transaction_that_failed_leave_nothing_to_complain_about(self) -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        producer = Producer(failing=ProducerFenced())
        with pytest.raises(ProducerFenced):
            await publish_commits(aiokafka(producer), [commit(1)])
        (delivery,) = producer.deliveries
        delivery.set_exception(ProducerFenced())
        await asyncio.sleep(0)
        producer.deliveries.clear()
        del delivery
        gc.collect()
        asyncio.get_running_loop().set_exception_handler(None)
        assert complaints == []


class TestLostDatabase:
    async def test_work_that_ends_ends_the_waiting(self) -> None:
        async def work() -> None:
            await asyncio.sleep(0)

        await _until_lost(asyncio.create_task(work()), asyncio.Event())

    async def test_its_failure_is_passed_on(self) -> None:
        async def work() -> None:
            raise KafkaConnectionError

        with pytest.raises(KafkaConnectionError):
            await _until_lost(asyncio.create_task(work()), asyncio.Event())

    async def test_without_the_lock_it_stops_at_once_and_is_waited_for(self) -> None:
        """Another relay may hold it by now: nothing of ours may still be on its way."""
        lost, ended = asyncio.Event(), []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("producer closed")

        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_soon(lost.set)
        with pytest.raises(_LostDatabase):
            await _until_lost(task, lost)
        assert ended == ["producer closed"]

    async def test_whoever_stops_it_stops_the_work(self) -> None:
        async def work() -> None:
            await asyncio.Event().wait()

        task = asyncio.create_task(work())
        waiting = asyncio.create_task(_until_lost(task, asyncio.Event()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert task.cancelled()

    async def test_a_failure_that_comes_with_the_loss_leaves_nothing_to_complain_about(self) -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        lost = asyncio.Event()
        lost.set()

        async def work() -> None:
            raise ConnectionResetError

        with pytest.raises(_LostDatabase):
            await _until_lost(asyncio.create_task(work()), lost)
        gc.collect()
        asyncio.get_running_loop().set_exception_handler(None)
        assert complaints == []


@dataclass
class Store:
    """An outbox in memory."""

    commits: list[StoredCommit] = field(default_factory=list)
    published: int = 0
    forgotten: list[int] = field(default_factory=list)
    damaged: str = ""
    away: bool = False
    batch: int = 10

    async def counters(self) -> Counters:
        if self.away:
            raise ConnectionResetError
        issued = self.commits[-1].seq if self.commits else self.published
        return Counters(issued_seq=issued, published_seq=self.published)

    async def commit_id(self, seq: int) -> None:
        """Nothing in this outbox has an id."""

    async def commits_after(self, seq: int) -> list[StoredCommit]:
        if self.damaged:
            raise OutboxDamaged(self.damaged)
        return [one for one in self.commits if one.seq > seq][: self.batch]

    async def forget_through(self, seq: int) -> None:
        self.published = seq
        self.forgotten.append(seq)
        self.commits = [one for one in self.commits if one.seq > seq]


@asynccontextmanager
async def at_work(store: Store, producer: Producer, tail: Tail = EMPTY) -> AsyncIterator[Relay]:
    """A relay that holds the lock and has fenced the others."""
    relay = Relay(
        database=make_url(f"postgresql+asyncpg://keyfob:{CANARY}@db/x"),
        schema="tests",
        kafka=KafkaSettings(),
        state_topic="t",
    )
    with pytest.MonkeyPatch.context() as patch, capture_logs():

        async def read(*_: Any, **__: Any) -> Tail:
            return tail

        patch.setattr(relay_module, "read_tail", read)
        patch.setattr(relay_module, "NET_S", 0.005)
        task = asyncio.create_task(relay._publish_all(cast("OutboxStore", store), aiokafka(producer)))
        try:
            yield relay
        finally:
            task.cancel()
            await asyncio.wait({task})


class TestFollowing:
    async def test_what_waits_is_published_and_then_forgotten(self) -> None:
        store, producer = Store([commit(1, "a"), commit(2, "b")]), Producer()
        async with at_work(store, producer) as relay:
            await until(lambda: store.forgotten)
            assert (producer.seen, store.commits, relay.published_seq) == (["a", "b"], [], 2)
            assert isinstance(relay.state, Publishing)
            assert relay.reason is None

    async def test_it_goes_on_behind_what_the_topic_holds_already(self) -> None:
        store = Store([commit(1, "a"), commit(2, "b")], published=1)
        producer = Producer()
        async with at_work(store, producer, Tail(1, None)):
            await until(lambda: producer.seen == ["b"])

    async def test_a_notification_that_got_lost_costs_a_moment(self) -> None:
        store, producer = Store(), Producer()
        async with at_work(store, producer) as relay:
            await until(lambda: isinstance(relay.state, Publishing))
            store.commits.append(commit(1, "a"))
            await until(lambda: producer.seen == ["a"])

    async def test_while_it_is_busy_it_tidies_up_now_and_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(relay_module, "TIDY_EVERY_S", 3600)
        store, producer = Store([commit(seq, str(seq)) for seq in range(1, 9)], batch=2), Producer()
        async with at_work(store, producer):
            await until(lambda: store.published == 8)
            assert len(producer.seen) == 8
            assert store.forgotten[-1] == 8
            assert len(store.forgotten) <= 2

    async def test_a_number_that_left_nothing_stops_it_for_good(self) -> None:
        """Rows were removed by hand: what they said is lost, and what follows may rest on it."""
        store, producer = Store([commit(1, "a"), commit(3, "c")]), Producer()
        async with at_work(store, producer) as relay:
            await until(lambda: isinstance(relay.state, Refused))
            assert producer.seen == ["a"]
            assert relay.reason == "commit 2 left nothing in the outbox, 3 did"
            store.commits.append(commit(4, "d"))
            await asyncio.sleep(0.02)
            assert producer.seen == ["a"]

    async def test_a_commit_that_is_not_whole_stops_it_for_good(self) -> None:
        store = Store(damaged="commit 1 is not whole in the outbox")
        async with at_work(store, Producer()) as relay:
            await until(lambda: isinstance(relay.state, Refused))
            assert relay.reason == "commit 1 is not whole in the outbox"
            assert not relay.ready

    async def test_a_topic_of_another_history_is_not_touched(self) -> None:
        store, producer = Store([commit(1, "a")]), Producer()
        async with at_work(store, producer, Tail(9, None)) as relay:
            await until(lambda: isinstance(relay.state, Refused))
            assert "rewound" in str(relay.reason)
            assert producer.seen == []


class TestRunning:
    @pytest.fixture
    def relay(self, monkeypatch: pytest.MonkeyPatch) -> Relay:
        monkeypatch.setattr(relay_module, "BACK_OFF_S", (0.0, 0.001))
        return Relay(
            database=make_url(f"postgresql+asyncpg://keyfob:{CANARY}@db/x"),
            schema="tests",
            kafka=KafkaSettings(),
            state_topic="t",
        )

    def test_before_it_runs_it_is_not_ready(self, relay: Relay) -> None:
        assert (relay.ready, relay.reason) == (False, "not started")

    def test_a_replica_whose_other_publishes_is_ready(self, relay: Relay) -> None:
        relay.state = Standby()
        assert relay.ready

    @pytest.mark.parametrize(
        ("error", "whose"),
        [
            (ConnectionRefusedError(), "database"),
            (TimeoutError(), "database"),
            (_LostDatabase(), "database"),
            (KafkaConnectionError(), "broker"),
            (ProducerFenced(), "broker"),
            (Unavailable("t: missing"), "broker"),
        ],
    )
    async def test_every_trouble_leads_back_to_the_start_and_is_named(
        self, relay: Relay, monkeypatch: pytest.MonkeyPatch, error: Exception, whose: str
    ) -> None:
        attempts = 0

        async def attempt() -> None:
            nonlocal attempts
            attempts += 1
            raise error

        monkeypatch.setattr(relay, "_with_database", attempt)
        with capture_logs() as logs:
            task = asyncio.create_task(relay.run())
            await until(lambda: attempts >= 3, every=0.001)
            task.cancel()
            await asyncio.wait({task})
        assert isinstance(relay.state, Starting)
        assert str(relay.reason).startswith(f"{whose}: {type(error).__name__}")
        assert CANARY not in str(logs)
        assert [line["retry_after_s"] for line in logs][:3] == [0.0, 0.001, 0.001], "it asks less and less often"

    async def test_a_mistake_of_ours_is_not_tried_for_ever(self, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
        async def attempt() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(relay, "_with_database", attempt)
        with pytest.raises(ZeroDivisionError):
            await relay.run()

    def test_it_shows_no_password(self, relay: Relay) -> None:
        assert CANARY not in repr(relay)
