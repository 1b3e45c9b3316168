"""A consumer of effects carries each message to its end: done, dead, or tried again; and moves on only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from structlog.testing import capture_logs

from shared.bus import effects
from shared.bus.cloudevents import Message, Unreadable
from shared.bus.effects import GATHER_BYTES, Ack, Batching, Consumption, Dead, EffectsBroker, Outcome, Patience, Retry
from shared.errors import Unavailable
from tests.fakes.clock import FakeClock
from tests.fakes.kafka_topic import FakeRecord

TOPIC = "keyfob.tests.v1"
CANARY = "hunter2-canary"


@dataclass(slots=True)
class Member:
    """The group member under a subscription: keeps positions."""

    kept: dict[TopicPartition, int] = field(default_factory=dict)
    refusing: bool = False

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        if self.refusing:
            raise CommitFailedError
        self.kept |= offsets


@dataclass
class Subscriber:
    """FastStream's subscriber as far as `Consumption` knows it; called once, with what takes the records."""

    options: dict[str, Any]
    running: bool = True
    consumer: Member | None = field(default_factory=Member)
    take: Callable[..., Any] | None = None

    def __call__(self, take: Callable[..., Any]) -> None:
        self.take = take


@dataclass
class Broker:
    """Takes dead letters."""

    member: str | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)
    away: int = 0
    """So many dead letters can't be delivered."""

    subscriptions: list[Subscriber] = field(default_factory=list)

    def subscriber(self, topic: str, **options: Any) -> Subscriber:
        assert topic == TOPIC
        self.subscriptions.append(Subscriber(options))
        return self.subscriptions[-1]

    async def publish(self, body: bytes, **letter: Any) -> None:
        if self.away:
            self.away -= 1
            raise KafkaConnectionError
        self.letters.append({"body": body, **letter})


@dataclass
class Work:
    """A subscription with a handler that gives the outcomes of a script, and then acks."""

    script: list[Outcome | Exception] = field(default_factory=list)
    batch: int | None = None
    gather_ms: int | None = None
    broker: Broker = field(default_factory=Broker)
    calls: list[tuple[str | None, ...]] = field(default_factory=list)
    patience: Patience = field(default_factory=lambda: Patience((0.0, 0.0)))
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.consumption = Consumption(
            cast("EffectsBroker", self.broker),
            topic=TOPIC,
            group="tests",
            handler=self.handle,
            patience=self.patience,
            batching=None if self.batch is None else Batching(self.batch, self.gather_ms),
            clock=self.clock,
        )
        (self.subscriber,) = self.broker.subscriptions

    async def handle(self, messages: tuple[Message, ...]) -> Outcome:
        self.calls.append(tuple(message.key for message in messages))
        outcome = self.script.pop(0) if self.script else Ack()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def take(self, *records: FakeRecord) -> None:
        assert self.subscriber.take is not None
        with capture_logs():
            await asyncio.wait_for(self.subscriber.take(records if self.batch else records[0]), 5)

    @property
    def kept(self) -> dict[int, int]:
        assert self.subscriber.consumer is not None
        return {partition.partition: offset for partition, offset in self.subscriber.consumer.kept.items()}


def record(offset: int, *, partition: int = 0, headers: tuple[tuple[str, bytes], ...] = ()) -> FakeRecord:
    return FakeRecord(TOPIC, offset, f"k{offset}".encode(), b"{}", headers, partition=partition)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "OUTAGE_DELAYS_S", (0.0,))


async def test_what_is_done_is_behind_us() -> None:
    work = Work([Ack()])
    await work.take(record(4))
    assert work.kept == {0: 5}
    assert (work.consumption.settled, work.consumption.buried) == (1, 0)


async def test_what_is_not_done_yet_is_tried_again_in_its_place() -> None:
    work = Work([Retry(), Retry(), Ack()])
    await work.take(record(4))
    assert work.calls == [("k4",)] * 3
    assert (work.kept, work.broker.letters) == ({0: 5}, [])


async def test_what_was_tried_often_enough_is_dead_and_the_next_one_has_its_turn() -> None:
    work = Work([Retry(reason="not yet")] * 3)
    await work.take(record(4))
    (letter,) = work.broker.letters
    assert letter["headers"]["dead_reason"] == "not yet"
    assert len(work.calls) == 3
    assert (work.kept, work.consumption.buried) == ({0: 5}, 1)


async def test_the_longer_of_what_the_handler_asks_and_what_patience_has_is_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    monkeypatch.setattr(effects, "asyncio", SimpleNamespace(sleep=sleep, timeout=asyncio.timeout))
    work = Work([Retry(3.0), Retry(0.1), Ack()], patience=Patience((1.0, 2.0)))
    await work.take(record(1))
    assert slept == [3.0, 2.0]


async def test_what_is_dead_at_once_is_not_tried_again() -> None:
    work = Work([Dead("no such thing")])
    await work.take(record(4))
    assert len(work.calls) == 1
    assert len(work.broker.letters) == 1


async def test_a_dead_letter_says_where_it_came_from_and_keeps_what_it_was() -> None:
    work = Work([Dead("odd")])
    await work.take(record(9, partition=3, headers=(("ce_type", b"x.v1"), ("traceparent", b"\xff"))))
    (letter,) = work.broker.letters
    assert (letter["topic"], letter["key"], letter["body"]) == (f"{TOPIC}.dead", b"k9", b"{}")
    assert letter["headers"] == {
        "ce_type": "x.v1",
        "traceparent": "\ufffd",
        "dead_topic": TOPIC,
        "dead_partition": "3",
        "dead_offset": "9",
        "dead_group": "tests",
        "dead_reason": "odd",
    }


async def test_a_reason_is_cut_before_it_is_stored() -> None:
    work = Work([Dead("x\n" * 5000)])
    await work.take(record(1))
    reason = work.broker.letters[0]["headers"]["dead_reason"]
    assert "\n" not in reason
    assert len(reason) <= 200


async def test_a_message_that_can_not_be_read_is_dead_with_the_reason() -> None:
    work = Work([Unreadable("not a keyfob.tests.v1")])
    await work.take(record(1))
    assert work.broker.letters[0]["headers"]["dead_reason"] == "not a keyfob.tests.v1"


async def test_an_error_of_the_code_is_tried_again_and_told_by_its_type_only() -> None:
    work = Work([ValueError(CANARY)] * 3)
    await work.take(record(1))
    assert len(work.calls) == 3
    assert work.broker.letters[0]["headers"]["dead_reason"] == "ValueError"


@pytest.mark.parametrize("away", [Unavailable("x"), TimeoutError(), ConnectionResetError(), KafkaConnectionError()])
async def test_an_outage_is_waited_out_however_long_and_no_message_is_to_blame(away: Exception) -> None:
    work = Work([*[away] * 20, Ack()])
    await work.take(record(4))
    assert len(work.calls) == 21
    assert (work.kept, work.broker.letters) == ({0: 5}, [])


async def test_outages_do_not_use_up_the_patience_with_a_message() -> None:
    work = Work([Retry(), Unavailable("x"), Retry(), Unavailable("x"), Ack()])
    await work.take(record(1))
    assert work.broker.letters == []


async def test_a_dead_letter_that_can_not_be_delivered_is_not_left_behind() -> None:
    work = Work([Dead("odd")])
    work.broker.away = 3
    await work.take(record(4))
    assert len(work.broker.letters) == 1
    assert work.kept == {0: 5}


class TestStopping:
    async def test_a_message_that_is_not_settled_when_it_stops_is_not_behind_us(self) -> None:
        work = Work()

        async def stop(_: tuple[Message, ...]) -> Outcome:
            work.subscriber.running = False
            return Retry()

        work.consumption._handler = stop
        await work.take(record(4))
        assert work.kept == {}

    async def test_nor_is_one_whose_dead_letter_was_not_delivered(self) -> None:
        work = Work()
        work.broker.away = 1

        async def stop(_: tuple[Message, ...]) -> Outcome:
            work.subscriber.running = False
            return Dead("odd")

        work.consumption._handler = stop
        await work.take(record(4))
        assert (work.kept, work.broker.letters) == ({}, [])

    async def test_without_a_connection_there_is_no_position_to_keep(self) -> None:
        work = Work()
        work.subscriber.consumer = None
        await work.take(record(4))
        assert work.consumption.settled == 1


async def test_a_position_that_can_not_be_kept_is_no_failure_the_message_just_comes_again() -> None:
    work = Work()
    assert work.subscriber.consumer is not None
    work.subscriber.consumer.refusing = True
    await work.take(record(4))
    assert (work.consumption.settled, work.kept) == (1, {})


class TestBatches:
    async def test_a_batch_that_is_done_is_done_for_each_partition(self) -> None:
        work = Work(batch=10)
        await work.take(record(1), record(2), record(7, partition=1))
        assert work.calls == [("k1", "k2", "k7")]
        assert (work.kept, work.consumption.settled) == ({0: 3, 1: 8}, 3)

    @pytest.mark.parametrize("outcome", [Retry(), Dead("odd"), ValueError("x"), Unreadable("x"), Unavailable("x")])
    async def test_unless_it_is_done_each_message_is_judged_by_itself(self, outcome: Outcome | Exception) -> None:
        work = Work([outcome], batch=10)
        await work.take(record(1), record(2))
        assert work.calls == [("k1", "k2"), ("k1",), ("k2",)]
        assert (work.kept, work.broker.letters) == ({0: 3}, [])

    async def test_one_bad_message_does_not_take_the_others_with_it(self) -> None:
        work = Work([Retry(), Ack(), Dead("odd"), Ack()], batch=10)
        await work.take(record(1), record(2), record(3))
        assert [letter["key"] for letter in work.broker.letters] == [b"k2"]
        assert (work.kept, work.consumption.settled) == ({0: 4}, 2)

    async def test_what_nobody_waits_for_is_gathered_by_the_broker_and_all_else_comes_at_once(self) -> None:
        gathered, at_once = Work(batch=10, gather_ms=250), Work(batch=10)
        held_back = ("fetch_min_bytes", "fetch_max_wait_ms")
        assert [gathered.subscriber.options[name] for name in held_back] == [GATHER_BYTES, 250]
        assert not set(held_back) & at_once.subscriber.options.keys()

    async def test_a_batch_of_one_is_a_single_message(self) -> None:
        work = Work([Retry(), Ack()], batch=10)
        await work.take(record(1))
        assert work.calls == [("k1",), ("k1",)]


class TestLiveness:
    async def test_while_a_message_is_worked_on_for_too_long_the_consumer_says_why(self) -> None:
        work, seen = Work([ValueError(CANARY)]), []

        async def slow(messages: tuple[Message, ...]) -> Outcome:
            work.clock.advance(61)
            seen.append(work.consumption.reason)
            return await work.handle(messages)

        work.consumption._handler = slow
        await work.take(record(1))
        assert seen == [f"{TOPIC} (tests): position does not move", f"{TOPIC} (tests): ValueError"]
        assert work.consumption.reason is None

    async def test_it_looks_only_where_there_is_a_consumer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        work, looked = Work(), []

        async def observe(consumer: Any) -> None:
            looked.append(consumer)
            work.subscriber.consumer = None

        monkeypatch.setattr(work.consumption.liveness, "observe", observe)
        watching = asyncio.create_task(work.consumption.watch(every_s=0))
        for _ in range(5):
            await asyncio.sleep(0)
        watching.cancel()
        assert len(looked) == 1


class TestMembership:
    def test_a_replica_with_a_lasting_name_has_one_in_each_group_that_it_reads_for(self) -> None:
        named, nameless = Work(broker=Broker(member="audit-0")), Work()
        assert named.subscriber.options["group_instance_id"] == f"audit-0-{TOPIC}"
        assert nameless.subscriber.options["group_instance_id"] is None

    def test_only_committed_messages_are_read_and_from_the_beginning(self) -> None:
        options = Work().subscriber.options
        assert (options["isolation_level"], options["auto_offset_reset"]) == ("read_committed", "earliest")
