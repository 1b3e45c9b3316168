"""The answer to "who may still use the old value?": at once, or as soon as nobody can, and never later than asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from services.notifier import inquiries as module
from services.notifier.domain.convergence import Bounds, Dropped, Expired, Member, MemberKind, Pending, Published
from services.notifier.domain.receipts import Heard
from services.notifier.domain.times import LATEST
from services.notifier.handlers import Quiet
from services.notifier.inquiries import Answer, Inquiries
from services.notifier.pulse import Pulse, first_of
from shared.events.notices import Notice, NoticeKind
from shared.events.receipts import GatewayReceipt
from tests.fakes.enrolled import T0
from tests.fakes.notes import FakeNotes
from tests.waiting import until

BOUNDS = Bounds(gateway=timedelta(seconds=60), resolver=timedelta(seconds=15))
MEMBER = Member(kind=MemberKind.GATEWAY, id="instance/1", name="gateway-1")
OFFSET = 100


def published(number: int = 1, *members: Member) -> Published:
    said = Notice(id=f"notice/{number}", kind=NoticeKind.ROTATION, cause_id=f"change/{number}", catalog_seq=7, at=T0)
    return Published(notice=said, offset=OFFSET + number - 1, at=T0, bounds_from=T0, members=members or (MEMBER,))


@dataclass
class Office:
    """Inquiries on fakes; `now` is the clock."""

    notes: FakeNotes = field(default_factory=FakeNotes)
    heard: Heard = field(default_factory=Heard)
    changed: Pulse = field(default_factory=Pulse)
    noted: Pulse = field(default_factory=Pulse)
    quiet: Quiet = field(default_factory=Quiet)
    now: datetime = T0

    def __post_init__(self) -> None:
        self.heard.complete_until = LATEST

    @property
    def inquiries(self) -> Inquiries:
        return Inquiries(self.notes.begin, self.heard, self.changed, self.noted, self.quiet, BOUNDS, lambda: self.now)

    def note(self, *noted: Published) -> None:
        for one in noted:
            self.notes.noted[one.notice.id] = one
        self.noted.beat()

    def drops(self, offset: int = OFFSET) -> None:
        receipt = GatewayReceipt(
            instance_id=MEMBER.id, run="run/1", n=0, applied_offset=offset, dropped_offset=offset, open_leases=0, at=T0
        )
        self.heard.gateway(receipt, self.now)
        self.changed.beat()

    def asking(self, event_id: str, *, wait_s: float) -> asyncio.Task[Answer | None]:
        return asyncio.create_task(self.inquiries.converged(event_id, wait_s=wait_s))


@pytest.fixture
def office() -> Office:
    return Office()


async def settled() -> None:
    """Let whoever can go on go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_without_waiting_the_answer_is_how_it_stands(office: Office) -> None:
    office.note(published())
    answer = await office.inquiries.converged("change/1", wait_s=0)
    assert answer is not None
    assert [one.standing for one in answer.state.members] == [Pending(T0 + timedelta(seconds=60))]


@pytest.mark.parametrize("name", ["change/1", "notice/1"])
async def test_a_notice_is_found_by_its_own_id_and_by_its_cause(office: Office, name: str) -> None:
    office.note(published())
    assert await office.inquiries.find(name) is not None
    assert await office.inquiries.converged(name, wait_s=0) is not None
    assert await office.inquiries.find("notice/2") is None


async def test_whoever_waits_is_answered_at_the_receipt_that_was_missing(office: Office) -> None:
    office.note(published())
    asking = office.asking("change/1", wait_s=30)
    await settled()
    office.drops(OFFSET - 1)
    await settled()
    assert not asking.done(), "a receipt that proves nothing answers nobody"
    receipt = GatewayReceipt(
        instance_id=MEMBER.id, run="run/1", n=1, applied_offset=OFFSET, dropped_offset=OFFSET, open_leases=0, at=T0
    )
    office.heard.gateway(receipt, T0)
    office.changed.beat()
    answer = await asking
    assert answer is not None
    assert answer.state.members[0].standing == Dropped(T0)


async def test_whoever_waits_is_answered_when_the_last_silent_member_expires(office: Office) -> None:
    office.note(published())
    office.now = T0 + timedelta(seconds=59.98)
    asking = office.asking("change/1", wait_s=30)
    await settled()
    office.now = T0 + timedelta(seconds=60)
    answer = await asyncio.wait_for(asking, 1)
    assert answer is not None
    assert isinstance(answer.state.members[0].standing, Expired)


async def test_before_everything_that_was_said_is_read_nobody_expires(office: Office) -> None:
    """A replica that has just started: its own silence is not a member's."""
    office.heard.complete_until = Heard().complete_until
    office.note(published())
    office.now = T0 + timedelta(seconds=70)
    answer = await office.inquiries.find("notice/1")
    assert answer is not None
    assert answer.state.members[0].standing == Pending(T0 + timedelta(seconds=60))


async def test_a_replica_that_is_deaf_lets_nobody_expire_whom_it_may_not_have_heard(office: Office) -> None:
    office.note(published())
    office.now = T0 + timedelta(seconds=70)
    office.heard.complete_until = T0 + timedelta(seconds=59)
    asking = office.asking("change/1", wait_s=30)
    await settled()
    assert not asking.done()
    office.heard.complete_until = T0 + timedelta(seconds=60)
    answer = await asyncio.wait_for(asking, 1)
    assert answer is not None
    assert answer.state.members[0].standing == Expired(T0 + timedelta(seconds=60))


async def test_who_waits_for_a_deaf_replica_does_not_keep_it_busy(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.note(published())
    office.now = T0 + timedelta(seconds=70)
    office.heard.complete_until = T0
    looks = 0

    def counted(*beats: asyncio.Event, timeout_s: float) -> Awaitable[None]:
        nonlocal looks
        looks += 1
        return first_of(*beats, timeout_s=timeout_s)

    monkeypatch.setattr(module, "first_of", counted)
    await office.inquiries.converged("change/1", wait_s=0.1)
    assert looks <= 2


async def test_nobody_waits_longer_than_asked(office: Office) -> None:
    office.note(published())
    answer = await asyncio.wait_for(office.inquiries.converged("change/1", wait_s=0.02), 1)
    assert answer is not None
    assert not answer.state.converged


async def test_a_notice_that_is_noted_meanwhile_is_found(office: Office) -> None:
    asking = office.asking("change/1", wait_s=30)
    await settled()
    office.drops()
    office.note(published())
    answer = await asyncio.wait_for(asking, 1)
    assert answer is not None
    assert answer.state.converged


async def test_one_that_another_replica_noted_is_found_a_little_later(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pulse does not reach this one."""
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    office.drops()
    asking = office.asking("change/1", wait_s=30)
    await settled()
    office.notes.noted["notice/1"] = published()
    assert await asyncio.wait_for(asking, 1) is not None


async def test_for_an_event_that_calls_for_no_notice_nobody_waits(office: Office) -> None:
    office.quiet.add("change/1")
    assert await asyncio.wait_for(office.inquiries.converged("change/1", wait_s=30), 1) is None


async def test_for_an_event_that_nobody_knows_the_answer_is_none_in_the_end(office: Office) -> None:
    assert await asyncio.wait_for(office.inquiries.converged("change/1", wait_s=0.02), 1) is None


async def test_what_was_proved_before_a_restart_counts(office: Office) -> None:
    office.note(published())
    office.notes.settled["notice/1"] = {MEMBER: Dropped(T0)}
    answer = await office.inquiries.find("notice/1")
    assert answer is not None
    assert answer.state.converged
    assert answer.noted.converged_at == T0


async def test_the_newest_come_first_each_with_its_own_standing(office: Office) -> None:
    office.note(published(1), published(2))
    office.drops(OFFSET)
    newest = await office.inquiries.newest(limit=10, before_offset=None)
    assert [one.noted.published.offset for one in newest] == [OFFSET + 1, OFFSET]
    assert [one.state.converged for one in newest] == [False, True]
    assert [one.noted.published.offset for one in await office.inquiries.newest(limit=1, before_offset=OFFSET + 1)] == [
        OFFSET
    ]


async def test_two_who_wait_are_both_answered(office: Office) -> None:
    office.note(published(1), published(2))
    asking = [office.asking(name, wait_s=30) for name in ("change/1", "change/2")]
    await settled()
    office.drops(OFFSET + 1)
    answers = await asyncio.wait_for(asyncio.gather(*asking), 1)
    assert all(answer is not None and answer.state.converged for answer in answers)


async def test_a_beat_between_looking_and_waiting_is_not_missed() -> None:
    pulse = Pulse()
    heard = pulse.listen()
    pulse.beat()
    await asyncio.wait_for(first_of(heard, timeout_s=30), 1)


async def test_a_beat_is_for_those_who_wait_now() -> None:
    pulse = Pulse()
    pulse.beat()
    started = asyncio.get_running_loop().time()
    await first_of(pulse.listen(), timeout_s=0.02)
    assert asyncio.get_running_loop().time() - started >= 0.02


async def test_the_first_of_several_is_enough_and_the_others_are_not_waited_for() -> None:
    one, two = Pulse(), Pulse()
    before = len(asyncio.all_tasks())
    waiting = asyncio.create_task(first_of(one.listen(), two.listen(), timeout_s=30))
    await settled()
    two.beat()
    await asyncio.wait_for(waiting, 1)
    await until(lambda: len(asyncio.all_tasks()) == before)


@pytest.mark.parametrize("timeout_s", [0, -1])
async def test_no_time_to_wait_is_no_waiting(timeout_s: float) -> None:
    await asyncio.wait_for(first_of(Pulse().listen(), timeout_s=timeout_s), 1)


async def test_a_member_that_is_a_resolver_is_looked_up_by_its_run(office: Office) -> None:
    resolver = Member(kind=MemberKind.RESOLVER, id="resolver-1", run="run/r1", name="resolver-1")
    office.note(replace(published(), members=(resolver,)))
    answer = await office.inquiries.find("notice/1")
    assert answer is not None
    assert answer.state.members[0].standing == Pending(T0 + BOUNDS.resolver)
