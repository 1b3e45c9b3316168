"""What counts as an outage, and when a consumer counts as stuck."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection, PGDialect_asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from shared.bus.cloudevents import Message, Unreadable, encode
from shared.bus.effects import IDLE_WAIT_MS, Ack, Dead, EffectsConsumer, Liveness, Outcome, by_type
from shared.bus.outages import is_outage
from shared.errors import Conflict, NotFresh, Unavailable
from tests.fakes.clock import FakeClock
from tests.fakes.state_topic import Switched


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("x"),
        NotFresh("x"),
        ConnectionRefusedError(),
        TimeoutError(),
        KafkaConnectionError(),
        OperationalError("s", {}, Exception()),
        asyncpg.InterfaceError("connection is closed"),
        InterfaceError("s", {}, asyncpg.InterfaceError("cannot perform operation: connection is closed")),
        InterfaceError("s", {}, Exception(), connection_invalidated=True),
    ],
)
def test_something_of_ours_is_away(error: Exception) -> None:
    assert is_outage(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        KeyError(),
        Conflict("x"),
        Unreadable("x"),
        IntegrityError("s", {}, Exception()),
        asyncpg.InterfaceError("the number of query arguments cannot exceed 32767"),
        InterfaceError("s", {}, asyncpg.DataError("invalid input for query argument $1")),
    ],
)
def test_the_message_or_the_code_is_wrong(error: Exception) -> None:
    assert not is_outage(error)


def refused(sqlstate: str) -> tuple[Exception, Exception]:
    """A server's refusal as the driver raises it while it connects, and as SQLAlchemy raises it later."""
    plain = asyncpg.PostgresError.new({"S": "ERROR", "C": sqlstate, "M": "x"})
    dbapi = PGDialect_asyncpg.import_dbapi()
    try:
        AsyncAdapt_asyncpg_connection._handle_exception_no_connection(dbapi, plain)
    except dbapi.Error as translated:
        wrapped = DBAPIError.instance("s", {}, translated, dbapi.Error, dialect=PGDialect_asyncpg())
        assert isinstance(wrapped, DBAPIError)
        return plain, wrapped


@pytest.mark.parametrize(
    "sqlstate",
    [
        "08006", "40001", "40P01", "53100", "53200", "53300", "57014", "57P01", "57P03", "58030", "25006", "55P03",
    ],
)  # fmt: skip
def test_a_database_that_can_not_do_it_now_is_away(sqlstate: str) -> None:
    assert [is_outage(error) for error in refused(sqlstate)] == [True, True]


@pytest.mark.parametrize("sqlstate", ["22003", "22021", "23505", "25001", "25P02", "28P01", "42501", "42P01", "54000"])
def test_what_a_database_will_never_do_is_no_outage(sqlstate: str) -> None:
    assert [is_outage(error) for error in refused(sqlstate)] == [False, False]


async def test_a_batch_is_waited_for_rather_than_asked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    async def getmany(_: Any, *, timeout_ms: int, max_records: int | None) -> dict[Any, Any]:
        asked.append(timeout_ms)
        return {}

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", getmany)
    consumer = EffectsConsumer.__new__(EffectsConsumer)
    await consumer.getmany(timeout_ms=1, max_records=5)
    await consumer.getmany(timeout_ms=5_000)
    assert asked == [IDLE_WAIT_MS, 5_000]


PARTITION = TopicPartition("t", 0)


@dataclass(slots=True)
class FakeGroupMember:
    """A consumer with positions and ends that a test sets."""

    position_now: int = 0
    end: int = 0
    away: bool = False
    assigned: set[Any] = field(default_factory=lambda: {PARTITION})

    def assignment(self) -> set[Any]:
        return self.assigned

    async def position(self, _: Any) -> int:
        return self.position_now

    async def end_offsets(self, partitions: list[Any]) -> dict[Any, int]:
        if self.away:
            raise KafkaConnectionError
        return dict.fromkeys(partitions, self.end)


async def test_a_consumer_with_nothing_to_do_is_live() -> None:
    clock, member = FakeClock(), FakeGroupMember(5, 5)
    liveness = Liveness(clock=clock, bound_s=10)
    for _ in range(5):
        await liveness.observe(member)
        clock.advance(60)
    assert not liveness.stuck


async def test_a_consumer_that_moves_is_live_however_far_behind() -> None:
    clock, member = FakeClock(), FakeGroupMember(0, 1000)
    liveness = Liveness(clock=clock, bound_s=10)
    for _ in range(5):
        await liveness.observe(member)
        clock.advance(9)
        member.position_now += 1
    assert not liveness.stuck
    assert liveness.lag > 900


async def test_a_consumer_that_does_not_move_while_the_end_does_is_stuck() -> None:
    clock, member = FakeClock(), FakeGroupMember(5, 6)
    liveness = Liveness(clock=clock, bound_s=10)
    await liveness.observe(member)
    clock.advance(11)
    await liveness.observe(member)
    assert liveness.stuck
    member.position_now = 6
    await liveness.observe(member)
    assert not liveness.stuck


async def test_what_comes_after_a_long_silence_is_given_its_time() -> None:
    clock, member = FakeClock(), FakeGroupMember(5, 5)
    liveness = Liveness(clock=clock, bound_s=10)
    await liveness.observe(member)
    clock.advance(60)
    member.end = 6
    await liveness.observe(member)
    assert not liveness.stuck
    clock.advance(11)
    await liveness.observe(member)
    assert liveness.stuck


async def test_a_message_that_takes_too_long_is_stuck_though_nothing_lies_behind_it() -> None:
    clock = FakeClock()
    liveness = Liveness(clock=clock, bound_s=10)
    liveness.began()
    clock.advance(11)
    assert liveness.stuck
    liveness.ended()
    assert not liveness.stuck


async def test_without_an_answer_the_last_look_counts() -> None:
    clock, member = FakeClock(), FakeGroupMember(5, 6)
    liveness = Liveness(clock=clock, bound_s=10)
    await liveness.observe(member)
    member.away = True
    clock.advance(11)
    await liveness.observe(member)
    assert liveness.stuck


async def test_a_partition_that_went_to_another_member_is_not_ours_to_move() -> None:
    clock, member = FakeClock(), FakeGroupMember(5, 6)
    liveness = Liveness(clock=clock, bound_s=10)
    await liveness.observe(member)
    member.assigned = set()
    clock.advance(11)
    await liveness.observe(member)
    assert not liveness.stuck


async def test_a_handler_is_chosen_by_type() -> None:
    seen: list[str] = []

    async def switched(event: Switched, _: Message) -> Outcome:
        seen.append(event.lamp)
        return Ack()

    handler = by_type({Switched: switched})
    message = encode(Switched(lamp="lamp/a"), key="lamp/a", source="keyfob/tests", event_id="e")
    assert await handler(message) == Ack()
    assert seen == ["lamp/a"]
    assert isinstance(await handler(Message(topic="t", key=None, value=b"{}")), Dead)
