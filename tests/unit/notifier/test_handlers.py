"""Changes become notices and alerts, and what stands in the topic is noted: once, whatever else lies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from services.dev.contracts.examples import EXAMPLES
from services.notifier.domain.convergence import Member, MemberKind, Published
from services.notifier.domain.notices import notice_for, notice_id
from services.notifier.domain.ports import Notes
from services.notifier.domain.times import written_at
from services.notifier.handlers import QUIET_KEPT, AlertFeed, Announcing, Noting, Quiet
from services.notifier.pulse import Pulse
from shared.bus.cloudevents import Message, Unreadable
from shared.bus.effects import Ack
from shared.errors import Unavailable
from shared.events.alerts import Alert, Severity
from shared.events.changes import VaultChangeKind
from shared.events.contract import Contract
from shared.events.custody import KeyChange, ValueAction
from shared.events.notices import Notice, NoticeKind, NoticeTick
from tests.fakes.enrolled import T0, ms, read
from tests.fakes.notes import FakeNotes
from tests.unit.notifier.test_notices import policy_change, value_change, vault_change

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MEMBER = Member(kind=MemberKind.GATEWAY, id="instance/1", name="gateway-1")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@dataclass
class Sent:
    """The port `Publish`: what was sent, and whether it can be."""

    said: list[tuple[Contract, str, str | None]] = field(default_factory=list)
    traces: list[str | None] = field(default_factory=list)
    fails_for: type[Contract] | None = None

    async def __call__(
        self, contract: Contract, *, event_id: str, key: str | None, traceparent: str | None = None
    ) -> None:
        if self.fails_for is not None and isinstance(contract, self.fails_for):
            raise Unavailable("the bus did not acknowledge within 5 s")
        self.said.append((contract, event_id, key))
        self.traces.append(traceparent)


def alert(number: int) -> Alert:
    return Alert(id=f"alert/{number}", kind="x", severity=Severity.INFO, summary="s", at=T0)


async def test_a_change_is_announced_under_the_id_that_its_notice_always_has() -> None:
    sent, change = Sent(), policy_change("grant/1")
    assert await Announcing(sent, Quiet()).on_change(read(change, key="grant/1")) == Ack()
    assert sent.said == [(notice_for(change), notice_id(change.id), None)]


async def test_a_change_that_is_delivered_again_is_announced_in_the_same_bytes() -> None:
    sent = Sent()
    announcing = Announcing(sent, Quiet())
    for _ in range(2):
        await announcing.on_change(read(policy_change("grant/1"), key="grant/1"))
    first, again = sent.said
    assert first[0].to_json() == again[0].to_json()
    assert first[1:] == again[1:]


async def test_what_ends_nothing_is_remembered_as_quiet_so_that_nobody_waits_for_it() -> None:
    sent, quiet = Sent(), Quiet()
    change = policy_change()
    await Announcing(sent, quiet).on_change(read(change, key="profile/1"))
    assert sent.said == []
    assert change.id in quiet


async def test_what_ends_something_is_not_quiet() -> None:
    quiet = Quiet()
    change = policy_change("grant/1")
    await Announcing(Sent(), quiet).on_change(read(change, key="grant/1"))
    assert change.id not in quiet


async def test_a_reference_that_nobody_can_read_is_announced_first_and_alerted_then() -> None:
    """Instances act on the notice; people have time until they read the alert."""
    sent = Sent()
    change = vault_change(VaultChangeKind.STATE_CHANGED, state="removed")
    await Announcing(sent, Quiet()).on_change(read(change, key="reference/1", traceparent=TRACE))
    assert [type(contract) for contract, _, _ in sent.said] == [Notice, Alert]
    assert sent.said[1][1] == sent.said[1][2] == sent.said[1][0].model_dump()["id"]
    assert sent.traces[1] == TRACE


@pytest.mark.parametrize("fails_for", [Notice, Alert])
async def test_what_is_not_certain_to_be_in_its_topic_is_not_done(fails_for: type[Contract]) -> None:
    change = vault_change(VaultChangeKind.STATE_CHANGED, state="removed")
    with pytest.raises(Unavailable):
        await Announcing(Sent(fails_for=fails_for), Quiet()).on_change(read(change, key="reference/1"))


@pytest.mark.parametrize(
    "message",
    [
        Message(topic="t", key=None, value=b""),
        replace(read(policy_change("grant/1"), key="grant/1"), value=b"\xff"),
        replace(read(vault_change(VaultChangeKind.ROTATED), key="reference/1"), value=b"{}"),
        read(alert(1), key="alert/1"),
    ],
    ids=["nothing", "no json", "no change", "another kind"],
)
async def test_what_is_no_change_is_said_to_be_unreadable(message: Message) -> None:
    sent = Sent()
    with pytest.raises(Unreadable):
        await Announcing(sent, Quiet()).on_change(message)
    assert sent.said == []


def test_only_so_many_quiet_changes_are_remembered_the_newest_ones() -> None:
    quiet = Quiet()
    for number in range(QUIET_KEPT + 2):
        quiet.add(str(number))
    assert "1" not in quiet
    assert "2" in quiet
    assert str(QUIET_KEPT + 1) in quiet


@dataclass
class Frozen:
    """The port `Expected`: everybody is one member; remembers what it was asked, and after what."""

    notes: FakeNotes
    asked: list[tuple[Published, ...]] = field(default_factory=list)
    departures: list[set[str]] = field(default_factory=list)
    failing: Exception | None = None

    async def __call__(self, published: Sequence[Published], notes: Notes) -> tuple[Published, ...]:
        if self.failing is not None:
            raise self.failing
        self.asked.append(tuple(published))
        self.departures.append(set(self.notes.gone))
        return tuple(replace(one, members=(MEMBER,)) for one in published)


@dataclass
class Desk:
    """Noting on fakes; what is read now is read at `now`."""

    notes: FakeNotes = field(default_factory=FakeNotes)
    noted: Pulse = field(default_factory=Pulse)
    now: datetime = T0 + timedelta(seconds=1)

    def __post_init__(self) -> None:
        self.frozen = Frozen(self.notes)
        self.noting = Noting(self.frozen, self.notes.begin, self.noted, lambda: self.now)


def said(number: int, *ended: str, seq: int | None = 1, seconds: float = 0) -> Message:
    notice = Notice(
        id=f"notice/{number}",
        kind=NoticeKind.REVOCATION,
        cause_id=f"change/{number}",
        ended=ended,
        policy_seq=seq,
        at=T0,
    )
    return read(notice, key=None, offset=number, at=at(seconds))


def tick(offset: int) -> Message:
    return read(NoticeTick(payload=b"{}", signature=b"s", key_id="k"), key=None, offset=offset)


async def test_notices_are_noted_with_their_place_and_their_members() -> None:
    desk = Desk()
    beat = desk.noted.listen()
    assert await desk.noting.on_notices((said(1), said(2))) == Ack()
    assert [(one.offset, one.members) for one in desk.notes.noted.values()] == [(1, (MEMBER,)), (2, (MEMBER,))]
    assert beat.is_set()
    assert desk.notes.transactions == 1, "one look at policy and one transaction for a whole batch"


async def test_ticks_and_what_nobody_can_read_cost_nothing_and_stop_nothing() -> None:
    desk = Desk()
    rubbish = replace(said(3), value=b"\xff")
    beat = desk.noted.listen()
    assert await desk.noting.on_notices((tick(1), rubbish, Message(topic="t", key=None, value=b""))) == Ack()
    assert (desk.notes.transactions, beat.is_set()) == (0, False)
    await desk.noting.on_notices((tick(1), rubbish, said(4)))
    assert list(desk.notes.noted) == ["notice/4"]


async def test_a_notice_that_stands_twice_in_the_topic_is_noted_where_it_stood_first() -> None:
    desk = Desk()
    await desk.noting.on_notices((said(1),))
    await desk.noting.on_notices((replace(said(1), offset=9),))
    assert desk.notes.noted["notice/1"].offset == 1


async def test_bounds_run_from_when_it_was_in_the_topic_for_certain() -> None:
    """The time in the message is when its producer was given it, which may have waited."""
    desk = Desk(now=at(5))
    await desk.noting.on_notices((said(1, seconds=0),))
    desk.now = at(3600)
    await desk.noting.on_notices((said(2, seconds=0),))
    assert [one.bounds_from for one in desk.notes.noted.values()] == [at(5), at(20)]
    assert [one.at for one in desk.notes.noted.values()] == [at(0), at(0)]


async def test_the_end_of_an_instance_is_kept_before_members_are_frozen() -> None:
    desk = Desk()
    await desk.noting.on_notices((said(1, "instance/1", "grant/1", "instance/2", seq=9),))
    assert desk.frozen.departures == [{"instance/1", "instance/2"}]
    kept = desk.notes.gone["instance/1"]
    assert (kept.policy_seq, kept.offset, kept.at) == (9, 1, at(1))


async def test_nothing_is_noted_while_members_can_not_be_known() -> None:
    desk = Desk()
    desk.frozen.failing = Unavailable("policy is away")
    beat = desk.noted.listen()
    with pytest.raises(Unavailable):
        await desk.noting.on_notices((said(1),))
    assert desk.notes.noted == {}
    assert not beat.is_set()


async def test_alerts_are_kept_once_however_often_they_come() -> None:
    notes = FakeNotes()
    feed = AlertFeed(notes.begin)
    first = read(alert(1), key="alert/1")
    assert await feed.on_alerts((first, first, read(alert(2), key="alert/2"))) == Ack()
    await feed.on_alerts((first,))
    assert [one.alert.id for one in notes.feed] == ["alert/1", "alert/2"]


async def test_what_is_no_alert_is_said_to_be_unreadable_and_nothing_of_the_batch_is_kept() -> None:
    """Then each is tried by itself (`shared.bus.effects`), so that one can't take others along."""
    notes = FakeNotes()
    with pytest.raises(Unreadable):
        await AlertFeed(notes.begin).on_alerts((read(alert(1), key="alert/1"), Message(topic="t", key=None, value=b"")))
    assert notes.feed == []


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [(ms(T0), T0), (0, datetime.fromtimestamp(0, T0.tzinfo)), (-1, datetime.fromtimestamp(0, T0.tzinfo))],
)
def test_a_producers_time_is_taken_as_it_is_where_it_is_one(stamp: int, expected: datetime) -> None:
    assert written_at(stamp) == expected


def test_a_producers_time_beyond_all_time_is_the_end_of_it() -> None:
    assert written_at(2**63 - 1).year == 9999


async def test_a_replaced_local_value_is_announced_like_any_rotation() -> None:
    sent, change = Sent(), value_change(ValueAction.REPLACED)
    assert await Announcing(sent, Quiet()).on_change(read(change, key="value/1")) == Ack()
    assert sent.said == [(notice_for(change), notice_id(change.id), None)]


async def test_another_installation_key_ends_no_lease() -> None:
    sent, change = Sent(), next(one for one in EXAMPLES if isinstance(one, KeyChange))
    assert await Announcing(sent, Quiet()).on_change(read(change, key="key/1")) == Ack()
    assert sent.said == []
