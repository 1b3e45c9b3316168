"""Whose word counts: receipts are judged by the instances that policy signed, and members are frozen from both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier import members as module
from services.notifier.alarms import Alarm
from services.notifier.domain.convergence import Bounds, Published
from services.notifier.domain.expectations import Departure
from services.notifier.domain.receipts import Heard
from services.notifier.domain.times import LATEST
from services.notifier.members import Members
from services.notifier.pulse import Pulse
from shared.bus.cloudevents import Message
from shared.crypto.signing import SigningKey
from shared.errors import Unavailable
from shared.events.notices import Notice, NoticeKind
from tests.fakes.enrolled import T0, Enrolled, Gateway, ms, resolver_receipt
from tests.fakes.notes import FakeNotes
from tests.waiting import until

BOUNDS = Bounds(gateway=timedelta(seconds=60), resolver=timedelta(seconds=15))


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@dataclass
class Receipts:
    """The topic: batches to be read, and whether it can be said that all was."""

    batches: list[tuple[Message, ...]] = field(default_factory=list)
    failing: Exception | None = None
    asked: int = 0
    trouble: str | None = None
    reading: Callable[[], None] = lambda: None
    """What happens while it is asked."""

    async def run(self, take: Callable[[tuple[Message, ...]], Awaitable[None]]) -> None:
        for batch in self.batches:
            await take(batch)

    async def caught_up(self) -> None:
        self.asked += 1
        self.reading()
        if self.failing is not None:
            raise self.failing


@dataclass
class World:
    """Members on fakes; `now` is the notifier's clock."""

    policy: Enrolled = field(default_factory=Enrolled)
    receipts: Receipts = field(default_factory=Receipts)
    notes: FakeNotes = field(default_factory=FakeNotes)
    now: datetime = T0

    def __post_init__(self) -> None:
        self.alarm = Alarm(self._never, lambda: self.now)
        self.heard, self.changed = Heard(), Pulse()
        self.heard.complete_until = LATEST
        self.members = Members(
            self.policy,
            self.receipts,
            self.policy.authority,
            self.alarm,
            BOUNDS,
            lambda: self.now,
            self.heard,
            self.changed,
            self.policy.resolvers,
        )

    async def _never(self, *_: object, **__: object) -> None:
        raise AssertionError("alarms are only raised here, not published")

    def alarms(self) -> list[str]:
        waiting = self.alarm._waiting
        return [waiting.get_nowait().kind for _ in range(waiting.qsize())]

    def said(self, gateway: Gateway) -> list[int]:
        return [run.dropped_offset for run in self.heard.gateway_runs(gateway.id)]

    async def names(self, *published: Published) -> list[set[str]]:
        frozen = await self.members.expected(published or (notice(),), self.notes)
        return [{member.name for member in one.members} for one in frozen]


def notice(offset: int = 100, *, seconds: float = 0, policy_seq: int | None = None) -> Published:
    said = Notice(id=f"notice/{offset}", kind=NoticeKind.ROTATION, cause_id="change/1", policy_seq=policy_seq, at=T0)
    return Published(notice=said, offset=offset, at=at(seconds), bounds_from=at(seconds), members=())


@pytest.fixture
def world() -> World:
    return World()


async def test_an_instances_own_word_is_heard(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    beat = world.changed.listen()
    await world.members.take([gateway.receipt(applied=7, at=at(-1))])
    (run,) = world.heard.gateway_runs(gateway.id)
    assert (run.dropped_offset, run.heard_at) == (7, at(-1))
    assert beat.is_set(), "whoever waits looks again"
    assert world.alarms() == []


async def test_what_another_key_signed_is_a_forgery(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(applied=7, key=SigningKey.generate())])
    assert world.said(gateway) == []
    assert world.alarms() == ["receipt-forged"]


async def test_a_receipt_that_stands_under_another_key_of_the_topic_is_a_forgery(world: World) -> None:
    """Only receipts of one partition have an order: an old one elsewhere could overtake a newer."""
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(applied=7, under="instance/other")])
    assert world.said(gateway) == []
    assert world.alarms() == ["receipt-forged"]


async def test_an_instance_that_policy_did_not_sign_counts_for_nothing(world: World) -> None:
    gateway = world.policy.enrol("planted", by=SigningKey.generate())
    await world.members.take([gateway.receipt(applied=7)])
    assert world.said(gateway) == []
    assert world.alarms() == ["receipt-forged"]


async def test_one_that_enrolled_a_moment_ago_is_asked_for_before_it_is_doubted(world: World) -> None:
    gateway = world.policy.enrol("new", seen=False)
    known = world.policy.enrol("old")
    await world.members.take([gateway.receipt(applied=7), known.receipt(applied=8)])
    assert (world.said(gateway), world.said(known)) == ([7], [8])
    assert world.policy.asked == 1
    assert world.alarms() == []


async def test_who_is_unknown_even_then_is_nobody(world: World) -> None:
    await world.members.take([Gateway("instance/nobody").receipt(applied=7)])
    assert list(world.heard.gateways()) == []
    assert world.alarms() == ["receipt-forged"]


async def test_receipts_wait_while_policy_can_not_be_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0)
    gateway = world.policy.enrol("new", seen=False)
    world.policy.failing = [Unavailable("away"), Unavailable("away")]
    await world.members.take([gateway.receipt(applied=7)])
    assert world.said(gateway) == [7]
    assert world.policy.asked == 3


async def test_of_an_instance_that_is_gone_for_good_nobody_is_alarmed(world: World) -> None:
    """Removed before this replica started: there is no key left to verify with, and nothing it could prove."""
    stranger = Gateway("instance/gone")
    world.policy.remove(stranger)
    await world.members.take([stranger.receipt(applied=7)])
    assert world.said(stranger) == []
    assert world.alarms() == []


async def test_a_banned_instances_word_does_not_count_and_alarms_nobody(world: World) -> None:
    """Its keys may be in other hands: those would say just that it dropped everything."""
    gateway = world.policy.enrol("gateway-1")
    world.policy.ban(gateway)
    await world.members.take([gateway.receipt(applied=7)])
    assert world.said(gateway) == []
    assert world.alarms() == []


async def test_what_an_instance_said_before_it_was_banned_stays_said(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(applied=7)])
    world.policy.ban(gateway)
    await world.members.take([gateway.receipt(applied=9)])
    assert world.said(gateway) == [7]


async def test_a_removed_instances_word_still_counts(world: World) -> None:
    """Taking a gateway out of service is no doubt in its word: it says that it dropped what it had."""
    gateway = world.policy.enrol("gateway-1")
    world.policy.remove(gateway)
    await world.members.take([gateway.receipt(applied=7)])
    assert world.said(gateway) == [7]


async def test_a_resolver_vouches_for_an_instance_without_keys_and_only_for_such(world: World) -> None:
    plain, sealed = world.policy.enrol("plain", https=True), world.policy.enrol("sealed")
    attested = world.policy.attested(plain, applied=7)
    await world.members.take([attested, world.policy.attested(sealed, applied=7)])
    assert (world.said(plain), world.said(sealed)) == ([7], [])
    assert world.alarms() == ["receipt-forged"]


async def test_only_resolvers_that_the_settings_name_vouch(world: World) -> None:
    plain = world.policy.enrol("plain", https=True)
    await world.members.take([world.policy.attested(plain, by=SigningKey.generate(), applied=7)])
    await world.members.take([plain.receipt(applied=7), plain.receipt(applied=7, key=world.policy.resolver_key)])
    assert world.said(plain) == []


async def test_a_resolver_does_not_vouch_for_one_that_is_banned(world: World) -> None:
    plain = world.policy.enrol("plain", https=True)
    world.policy.ban(plain)
    await world.members.take([world.policy.attested(plain, applied=7)])
    assert world.said(plain) == []


async def test_two_that_act_under_one_identity_are_told_of_once(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    twin = replace(gateway, run="run/2")
    for _ in range(3):
        await world.members.take([gateway.receipt(), twin.receipt()])
    assert world.alarms() == ["instance-duplicated"]


async def test_a_restart_is_no_twin(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([gateway.receipt(), gateway.receipt()])
    successor = replace(gateway, run="run/2", n=0)
    await world.members.take([successor.receipt(), successor.receipt()])
    assert world.alarms() == []


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b'{"instance_id": "x"}'])
async def test_what_is_no_receipt_alarms_and_stops_nothing(world: World, value: bytes) -> None:
    gateway = world.policy.enrol("gateway-1")
    rubbish = replace(gateway.receipt(), value=value)
    await world.members.take([rubbish, gateway.receipt(applied=7)])
    assert world.said(gateway) == [7]
    assert world.alarms() == ["record-unreadable"]


@pytest.mark.parametrize("stamp", [2**62, -(2**62), 10**17, -(10**17)])
async def test_a_time_that_is_none_stops_nothing(world: World, stamp: int) -> None:
    """The producer writes it: whoever may write receipts could stop the notifier, again at each of its starts."""
    gateway, other = world.policy.enrol("gateway-1"), world.policy.enrol("gateway-2")
    await world.members.take([replace(gateway.receipt(applied=7), timestamp_ms=stamp), other.receipt(applied=8)])
    assert world.said(other) == [8]
    assert all(run.heard_at <= world.now for run in world.heard.gateway_runs(gateway.id))


async def test_nobody_is_heard_in_the_future(world: World) -> None:
    """A clock that is ahead would make a silent instance look alive."""
    gateway = world.policy.enrol("gateway-1")
    await world.members.take([replace(gateway.receipt(), timestamp_ms=ms(at(3600))), resolver_receipt(at=at(3600))])
    (run,) = world.heard.gateway_runs(gateway.id)
    (resolver,) = world.heard.resolvers()
    assert run.heard_at == resolver.heard_at == world.now


async def test_resolvers_that_were_silent_for_long_are_forgotten(world: World) -> None:
    await world.members.take([resolver_receipt(replica_id="old", at=at(-61)), resolver_receipt(at=at(-59))])
    assert [run.replica_id for run in world.heard.resolvers()] == ["resolver-1"]


async def test_a_resolver_is_not_forgotten_for_what_this_replica_has_not_read_yet(world: World) -> None:
    """Back after a minute without the broker, the first batch holds only the beginning of what was said meanwhile."""
    await world.members.take([resolver_receipt(at=at(-1))])
    world.heard.complete_until, world.now = T0, at(70)
    await world.members.take([resolver_receipt(replica_id="other", at=at(1))])
    assert [run.replica_id for run in world.heard.resolvers()] == ["resolver-1", "other"]


async def test_all_is_heard_up_to_when_the_topic_was_asked_and_not_to_when_it_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0)
    world.heard.complete_until = never = Heard().complete_until
    world.receipts.failing = Unavailable("away")
    assert world.members.trouble is not None
    keeping = asyncio.create_task(world.members.keep_complete())
    try:
        await until(lambda: world.receipts.asked > 1)
        assert world.heard.complete_until == never
        world.receipts.reading = lambda: setattr(world, "now", world.now + timedelta(seconds=1))
        world.receipts.failing = None
        await until(lambda: world.members.trouble is None)
        assert T0 <= world.heard.complete_until < world.now
        world.receipts.trouble = "down"
        assert world.members.trouble == "down"
    finally:
        keeping.cancel()


async def test_every_batch_of_the_topic_is_taken_in(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    world.receipts.batches = [(gateway.receipt(applied=1),), (), (gateway.receipt(applied=5),)]
    await world.members.listen()
    assert world.said(gateway) == [5]


@given(
    value=st.binary(max_size=100),
    stamp=st.integers(-(2**63), 2**63 - 1),
    kind=st.sampled_from(["gateway", "resolver", ""]),
)
async def test_no_message_stops_the_reader(value: bytes, stamp: int, kind: str) -> None:
    world = World()
    headers = (("ce_specversion", b"1.0"), ("ce_type", f"keyfob.receipt.{kind}.v1".encode()))
    await world.members.take([Message(topic="t", key="k", value=value, headers=headers, timestamp_ms=stamp)])


async def test_expected_are_all_enrolled_instances_and_lively_resolvers(world: World) -> None:
    world.policy.enrol("gateway-1")
    world.policy.enrol("gateway-2", seen=False)
    await world.members.take([resolver_receipt(at=at(-1)), resolver_receipt(replica_id="lost", at=at(-16))])
    assert await world.names() == [{"gateway-1", "gateway-2", "resolver-1"}]
    assert (world.policy.asked, world.receipts.asked) == (1, 1)


@pytest.mark.parametrize("away", ["policy", "receipts"])
async def test_nobody_is_frozen_while_it_can_not_be_said_who_there_is(world: World, away: str) -> None:
    world.policy.enrol("gateway-1")
    if away == "policy":
        world.policy.failing = [Unavailable("away")]
    else:
        world.receipts.failing = Unavailable("away")
    with pytest.raises(Unavailable):
        await world.names()


async def test_a_banned_instance_is_waited_for_until_its_end_has_converged(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    seq = world.policy.ban(gateway, name="gateway-1")
    await world.notes.depart([Departure(instance_id=gateway.id, policy_seq=seq, offset=100, at=at(0))])
    # Its word that it dropped everything ends no waiting; its bound does.
    await world.members.take([gateway.receipt(applied=101)])
    assert await world.names(notice(101, seconds=59), notice(102, seconds=60)) == [{"gateway-1"}, set()]


async def test_a_removed_instance_is_waited_for_until_it_dropped(world: World) -> None:
    gateway = world.policy.enrol("gateway-1")
    world.policy.remove(gateway)
    known = world.policy.snapshot.get(gateway.id)
    assert known is not None
    departure = Departure(instance_id=gateway.id, policy_seq=known.since_seq, offset=100, at=at(0))
    await world.notes.depart([departure])
    await world.members.take([gateway.receipt(applied=100, dropped=99, leases=1)])
    assert await world.names(notice(101, seconds=59)) == [{"gateway-1"}]
    await world.members.take([gateway.receipt(applied=101)])
    assert await world.names(notice(103, seconds=1)) == [set()]


async def test_one_whose_end_nobody_noted_is_waited_for_once(world: World) -> None:
    """The notice of its end is older than what is kept here: from the next one on, a bound runs for it."""
    gateway = world.policy.enrol("gateway-1")
    seq = world.policy.ban(gateway, name="gateway-1")
    assert await world.names(notice(100)) == [{"gateway-1"}]
    assert world.notes.gone[gateway.id] == Departure(instance_id=gateway.id, policy_seq=seq, offset=100, at=at(0))
    assert await world.names(notice(101, seconds=59), notice(102, seconds=61)) == [{"gateway-1"}, set()]
