"""The notifier's own loops: alerts that are owed, ticks that are passed on, proofs that are written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from services.notifier import alarms, settling, ticking
from services.notifier.alarms import MOST_WAITING, REMEMBERED, Alarm
from services.notifier.domain.alerts import duplicated_instance, forged_receipt
from services.notifier.domain.convergence import Bounds, GatewayProgress
from services.notifier.domain.receipts import Heard
from services.notifier.pulse import Pulse
from services.notifier.settings import NotifierSettings
from services.notifier.settling import Settling
from services.notifier.ticking import Ticker
from shared.crypto.signing import SigningKey
from shared.errors import Unavailable
from shared.events.alerts import Alert, Severity
from shared.events.contract import Contract
from shared.events.notices import NoticeTick
from shared.events.receipts import GatewayReceipt
from shared.projection.instances import Instances
from tests.fakes.enrolled import T0, Enrolled
from tests.fakes.notes import FakeNotes
from tests.waiting import until


@dataclass
class Topic:
    """The port `Publish`; `failing` are errors that the next attempts meet."""

    said: list[tuple[Contract, str, str | None]] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)

    async def __call__(
        self, contract: Contract, *, event_id: str, key: str | None, traceparent: str | None = None
    ) -> None:
        if self.failing:
            raise self.failing.pop(0)
        self.said.append((contract, event_id, key))


@asynccontextmanager
async def running(*work: object) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one) for one in work]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


def alert(number: int) -> Alert:
    return Alert(id=f"alert/{number}", kind="x", severity=Severity.INFO, summary="s", at=T0)


# Alarms


async def test_the_same_alert_is_raised_once() -> None:
    topic = Topic()
    alarm = Alarm(topic, lambda: T0)
    for number in (1, 1, 2, 1):
        alarm.raise_(alert(number))
    async with running(alarm.run()):
        await until(lambda: len(topic.said) == 2)
    assert [(contract, key) for contract, _, key in topic.said] == [(alert(1), "alert/1"), (alert(2), "alert/2")]


async def test_an_alert_is_owed_until_it_is_in_its_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarms, "AGAIN_AFTER_S", 0)
    topic = Topic(failing=[Unavailable("away"), RuntimeError("a surprise")])
    alarm = Alarm(topic, lambda: T0)
    alarm.raise_(alert(1))
    alarm.raise_(alert(2))
    async with running(alarm.run()):
        await until(lambda: len(topic.said) == 2)
    assert [event_id for _, event_id, _ in topic.said] == ["alert/1", "alert/2"], "and in their order"


async def test_a_flood_takes_bounded_room_and_what_found_none_is_raised_when_it_comes_again() -> None:
    topic = Topic()
    alarm = Alarm(topic, lambda: T0)
    for number in range(MOST_WAITING + 5):
        alarm.raise_(alert(number))
    assert alarm._waiting.qsize() == MOST_WAITING
    async with running(alarm.run()):
        await until(lambda: len(topic.said) == MOST_WAITING)
        alarm.raise_(alert(MOST_WAITING + 1))
        await until(lambda: len(topic.said) == MOST_WAITING + 1)


async def test_what_was_raised_long_ago_is_forgotten() -> None:
    alarm = Alarm(Topic(), lambda: T0)
    alarm._raised.update(dict.fromkeys(f"old/{number}" for number in range(REMEMBERED)))
    alarm.raise_(alert(1))
    assert len(alarm._raised) == REMEMBERED
    assert "old/0" not in alarm._raised


async def test_a_record_that_can_not_be_used_is_told_by_topic_key_and_reason() -> None:
    topic = Topic()
    alarm = Alarm(topic, lambda: T0)
    for key in ("instance/1", "instance/1", "instance/2", None):
        alarm.unreadable("keyfob.policy.v1", key, "not a CloudEvent 1.0")
    async with running(alarm.run()):
        await until(lambda: len(topic.said) == 3)
    assert all(isinstance(one, Alert) and "not a CloudEvent 1.0" in one.summary for one, _, _ in topic.said)


def test_forgeries_in_one_name_are_one_alert_an_hour() -> None:
    first, soon, later = (
        forged_receipt("instance/1", known=True, at=T0 + timedelta(minutes=minutes)) for minutes in (0, 29, 31)
    )
    assert first.id == soon.id != later.id
    assert forged_receipt("instance/2", known=True, at=T0).id != first.id


def test_the_same_two_runs_are_one_alert_whichever_spoke_first() -> None:
    one = duplicated_instance("instance/1", "gateway-1", runs=("run/1", "run/2"), at=T0)
    assert one.id == duplicated_instance("instance/1", "gateway-1", runs=("run/2", "run/1"), at=T0).id
    assert one.id != duplicated_instance("instance/1", "gateway-1", runs=("run/1", "run/3"), at=T0).id
    assert "gateway-1" in one.summary
    assert "instance/1" in duplicated_instance("instance/1", "", runs=(), at=T0).summary


# Ticks


class Policy:
    """A snapshot that changes when the test says so."""

    def __init__(self, enrolled: Enrolled) -> None:
        self.enrolled = enrolled
        self._moved = asyncio.Event()

    def snapshot(self) -> Instances:
        return self.enrolled.snapshot

    async def moved(self) -> None:
        await self._moved.wait()
        self._moved.clear()

    def move(self) -> None:
        self._moved.set()


@pytest.fixture
def policy() -> Policy:
    return Policy(Enrolled())


def ticker(policy: Policy, topic: Topic, alarm: Alarm) -> Ticker:
    return Ticker(policy.snapshot, policy.moved, topic, policy.enrolled.authority, alarm)


async def test_each_tick_is_passed_on_once_as_it_was_signed(policy: Policy) -> None:
    topic = Topic()
    first = policy.enrolled.tick()
    async with running(ticker(policy, topic, Alarm(topic, lambda: T0)).run()):
        await until(lambda: len(topic.said) == 1)
        policy.move()
        await asyncio.sleep(0)
        second = policy.enrolled.tick()
        policy.move()
        await until(lambda: len(topic.said) == 2)
    passed = [contract for contract, _, _ in topic.said]
    assert all(isinstance(one, NoticeTick) for one in passed)
    assert [one.payload for one in passed if isinstance(one, NoticeTick)] == [first.payload, second.payload]
    assert [event_id for _, event_id, _ in topic.said] == [f"tick/{first.seq}", f"tick/{second.seq}"]


async def test_a_tick_that_policy_did_not_sign_is_not_passed_on_and_people_are_told_once(policy: Policy) -> None:
    topic = Topic()
    alarm = Alarm(topic, lambda: T0)
    policy.enrolled.tick(by=SigningKey.generate())
    async with running(ticker(policy, topic, alarm).run()):
        await until(lambda: alarm._waiting.qsize() == 1)
        genuine = policy.enrolled.tick()
        policy.move()
        await until(lambda: topic.said)
    assert [event_id for _, event_id, _ in topic.said] == [f"tick/{genuine.seq}"]


async def test_a_tick_that_was_not_taken_gives_way_to_a_newer_one(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old tick proves nothing that the newer one does not."""
    monkeypatch.setattr(ticking, "RETRY_AFTER_S", 0.01)
    topic = Topic(failing=[Unavailable("away")])
    policy.enrolled.tick()
    async with running(ticker(policy, topic, Alarm(topic, lambda: T0)).run()):
        await until(lambda: not topic.failing)
        newer = policy.enrolled.tick()
        await until(lambda: topic.said)
    assert [event_id for _, event_id, _ in topic.said] == [f"tick/{newer.seq}"]


# Settling


@dataclass
class Ledger:
    """Settling on fakes."""

    notes: FakeNotes = field(default_factory=FakeNotes)
    heard: Heard = field(default_factory=Heard)
    changed: Pulse = field(default_factory=Pulse)
    noted: Pulse = field(default_factory=Pulse)
    now: datetime = T0

    @property
    def settling(self) -> Settling:
        return Settling(
            self.notes.begin,
            self.heard,
            self.changed,
            self.noted,
            Bounds(gateway=timedelta(seconds=60), resolver=timedelta(seconds=15)),
            lambda: self.now,
            0.0,
            timedelta(days=90),
        )

    def hear(self, dropped: int, *, run: str = "run/1", n: int = 0) -> None:
        receipt = GatewayReceipt(
            instance_id="instance/1",
            run=run,
            n=n,
            applied_offset=dropped,
            dropped_offset=dropped,
            open_leases=0,
            at=T0,
        )
        self.heard.gateway(receipt, self.now)


async def test_what_is_proved_is_written_and_only_what_every_living_process_proved() -> None:
    ledger = Ledger()
    ledger.hear(7)
    await ledger.settling.settle()
    ledger.hear(9, run="run/2")
    ledger.hear(8, n=1)
    await ledger.settling.settle()
    assert [list(gateways) for gateways, _ in ledger.notes.progress] == [
        [GatewayProgress("instance/1", 7, T0)],
        [GatewayProgress("instance/1", 8, T0)],
    ]


@pytest.mark.parametrize("what", ["changed", "noted"])
async def test_it_settles_at_once_when_something_changed(what: str) -> None:
    ledger = Ledger()
    async with running(ledger.settling.run()):
        await until(lambda: len(ledger.notes.progress) == 1)
        await asyncio.sleep(0.01)
        assert len(ledger.notes.progress) == 1, "and not while nothing does"
        getattr(ledger, what).beat()
        await until(lambda: len(ledger.notes.progress) == 2)


async def test_a_database_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "LOOK_AT_LEAST_EVERY_S", 0.01)
    ledger = Ledger(FakeNotes(away=2))
    async with running(ledger.settling.run()):
        await until(lambda: ledger.notes.progress)


async def test_an_error_of_another_kind_ends_the_loop_and_with_it_the_process() -> None:
    ledger = Ledger()
    ledger.heard = None  # type: ignore[assignment] - something that is simply wrong
    with pytest.raises(AttributeError):
        await ledger.settling.run()


async def test_what_is_old_is_let_go_of_once_an_hour() -> None:
    ledger = Ledger()
    async with running(ledger.settling.run()):
        await until(lambda: len(ledger.notes.progress) == 1)
        assert ledger.notes.forgotten == []
        ledger.now = T0 + timedelta(minutes=61)
        ledger.changed.beat()
        await until(lambda: ledger.notes.forgotten)
        ledger.changed.beat()
        await until(lambda: len(ledger.notes.progress) == 3)
    assert ledger.notes.forgotten == [T0 + timedelta(minutes=61) - timedelta(days=90)]


def test_bounds_hold_what_clocks_may_differ_by() -> None:
    bounds = NotifierSettings(gateway_bound_s=60, resolver_bound_s=15, clock_allowance_s=2).bounds()
    assert (bounds.gateway, bounds.resolver) == (timedelta(seconds=62), timedelta(seconds=17))
