"""How far an instance may say it has come."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from services.gateway.client.leases import Floor, Lease, Moment, rests_on_what_ended
from services.gateway.client.ledger import Accepted, Crossed, Ledger, Out
from shared.events.notices import Notice
from shared.events.receipts import LeaseEnd
from tests.fakes.installation import revocation, rotation
from tests.thoroughness import examples

NOW = Moment(100.0, 1_000_000.0)
NOTHING = Floor()


def lease(id_: str, version: str = "1", decided: Floor = NOTHING, grant: str = "grant/1") -> Lease:
    return Lease(
        id=id_,
        reference_id="reference/a",
        version=version,
        rests_on=frozenset([grant]),
        decided=decided,
        expires_at=NOW.wall + 60,
        expires_at_monotonic=NOW.monotonic + 60,
    )


def test_what_came_before_the_captured_position_is_dropped_by_construction() -> None:
    ledger = Ledger()
    ledger.start_at(42)
    assert (ledger.progress().applied_offset, ledger.progress().dropped_offset) == (41, 41)


def test_a_notice_that_ends_nothing_is_applied_and_dropped_at_once() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    assert ledger.apply(0, revocation("grant/9", seq=3)) == ()
    assert (ledger.progress().applied_offset, ledger.progress().dropped_offset) == (0, 0)


def test_dropped_stays_before_a_notice_until_the_holder_has_let_go() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    assert ledger.settle(ledger.ask(), [lease("lease/1")]) == Accepted()
    ledger.apply(7, revocation("grant/1", seq=3))
    ledger.pass_over(8)
    assert (ledger.progress().applied_offset, ledger.progress().dropped_offset) == (8, 6)
    ledger.end(["lease/1"], LeaseEnd.NOTICE, NOW)
    assert ledger.progress().dropped_offset == 8


def test_dropped_stays_before_a_notice_until_resolves_that_were_out_are_back() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    out = ledger.ask()
    ledger.apply(7, revocation("grant/9", seq=3))
    assert ledger.progress().dropped_offset == 6
    later = ledger.ask()
    ledger.give_up(out)
    assert ledger.progress().dropped_offset == 7, "one that went out later was decided later"
    ledger.give_up(later)


def test_an_answer_that_crossed_its_notice_is_discarded_and_the_floor_is_raised() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    out = ledger.ask()
    ledger.apply(0, rotation("reference/a", "2", 3))
    assert ledger.settle(out, [lease("lease/1", version="1")]) == Crossed(Floor(0, 3))
    assert len(ledger.book) == 0


def test_an_answer_that_already_knew_the_notice_is_kept() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    out = ledger.ask()
    ledger.apply(0, rotation("reference/a", "2", 3))
    assert ledger.settle(out, [lease("lease/1", version="2", decided=Floor(0, 3))]) == Accepted()


def test_an_answer_of_a_resolver_that_lags_behind_the_floor_is_discarded() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    ledger.apply(0, revocation("grant/1", seq=3))
    out = ledger.ask()
    assert isinstance(ledger.settle(out, [lease("lease/1", decided=Floor(2, 0))]), Crossed)


def test_a_hole_spoils_whatever_is_out_and_fences_whatever_is_held() -> None:
    ledger = Ledger()
    ledger.start_at(0)
    ledger.settle(ledger.ask(), [lease("lease/1")])
    out = ledger.ask()
    (fenced,) = ledger.lose(20)
    assert fenced.lease.id == "lease/1"
    assert ledger.progress().dropped_offset == 19
    assert isinstance(ledger.settle(out, [lease("lease/2", decided=Floor(99, 99))]), Crossed)
    ledger.end(["lease/1"], LeaseEnd.FENCED, NOW)
    assert ledger.progress().dropped_offset == 20


def test_a_topic_that_was_made_anew_leaves_nothing_dropped_beyond_what_is_applied() -> None:
    ledger = Ledger()
    ledger.start_at(90)
    ledger.settle(ledger.ask(), [lease("lease/1")])
    ledger.apply(100, revocation("grant/1", seq=3))
    ledger.lose(5)
    assert (ledger.progress().applied_offset, ledger.progress().dropped_offset) == (5, 4)
    ledger.end(["lease/1"], LeaseEnd.NOTICE, NOW)
    assert ledger.progress().dropped_offset == 5


def test_a_resolve_that_is_out_when_a_topic_is_made_anew_keeps_the_loss_from_being_dropped() -> None:
    ledger = Ledger()
    ledger.start_at(90)
    out = ledger.ask()
    ledger.apply(100, revocation("grant/9", seq=3))
    ledger.lose(5)
    ledger.pass_over(7)
    assert (ledger.progress().applied_offset, ledger.progress().dropped_offset) == (7, 4)
    ledger.give_up(out)
    assert ledger.progress().dropped_offset == 7


def test_an_end_is_told_until_a_receipt_with_it_is_durable() -> None:
    ledger = Ledger()
    ledger.settle(ledger.ask(), [lease("lease/1"), lease("lease/2")])
    ledger.end(["lease/1", "lease/1"], LeaseEnd.SESSION, NOW)
    assert [one.lease_id for one in ledger.unreported()[0]] == ["lease/1"]
    ledger.end(["lease/2"], LeaseEnd.SESSION, NOW)
    ledger.reported(1, 0)
    assert [one.lease_id for one in ledger.unreported()[0]] == ["lease/2"]


class Life(RuleBasedStateMachine):
    """Any order of questions, answers, notices and ends. The model remembers everything that was ever said."""

    outs: Bundle[tuple[Out, int]] = Bundle("outs")
    held: Bundle[Lease] = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.ledger.start_at(0)
        self.said: list[tuple[int, Notice]] = []
        self.out: dict[int, int] = {}
        self.kept: dict[str, tuple[Lease, int]] = {}
        self.offset = -1
        self.seq = 0
        self.count = 0

    @rule(target=outs)
    def ask(self) -> tuple[Out, int]:
        self.count += 1
        self.out[self.count] = self.offset
        return self.ledger.ask(), self.count

    @rule(
        target=held,
        asked=consumes(outs),
        version=st.sampled_from("123"),
        grant=st.sampled_from("12"),
        lag=st.integers(0, 2),
    )
    def answer(self, asked: tuple[Out, int], version: str, grant: str, lag: int) -> Lease:
        out, number = asked
        decided = Floor(max(self.seq - lag, 0), max(self.seq - lag, 0))
        brought = lease(f"lease/{number}", version, decided, f"grant/{grant}")
        since = self.out.pop(number)
        crossed = [notice for offset, notice in self.said if offset > since]
        outcome = self.ledger.settle(out, [brought])
        if outcome == Accepted():
            assert not any(rests_on_what_ended(brought, notice) for notice in crossed)
            self.kept[brought.id] = (brought, self.offset)
        return brought

    @rule(asked=consumes(outs))
    def fail(self, asked: tuple[Out, int]) -> None:
        self.ledger.give_up(asked[0])
        del self.out[asked[1]]

    @rule(one=held)
    def let_go(self, one: Lease) -> None:
        self.ledger.end([one.id], LeaseEnd.SESSION, NOW)
        self.kept.pop(one.id, None)

    @rule(grant=st.sampled_from("12"))
    def revoke(self, grant: str) -> None:
        self._say(revocation(f"grant/{grant}", seq=self._next()))

    @rule(current=st.sampled_from("123"))
    def rotate(self, current: str) -> None:
        self._say(rotation("reference/a", current, self._next()))

    @rule()
    def tick(self) -> None:
        self.offset += 1
        self.ledger.pass_over(self.offset)

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    def _say(self, notice: Notice) -> None:
        self.offset += 1
        self.said.append((self.offset, notice))
        self.ledger.apply(self.offset, notice)

    @invariant()
    def applied_is_what_was_read(self) -> None:
        assert self.ledger.progress().applied_offset == self.offset

    @invariant()
    def dropped_passes_no_notice_that_something_still_waits_for(self) -> None:
        dropped = self.ledger.progress().dropped_offset
        for offset, notice in self.said:
            if offset > dropped:
                continue
            assert not any(since < offset for since in self.out.values()), "a resolve was out"
            for one, since in self.kept.values():
                assert offset <= since or not rests_on_what_ended(one, notice), "a lease is held"

    @invariant()
    def what_ended_is_not_usable(self) -> None:
        for one, since in self.kept.values():
            over = any(rests_on_what_ended(one, notice) for offset, notice in self.said if offset > since)
            assert self.ledger.book.usable(one.id, NOW) == (not over)

    @invariant()
    def without_anything_open_all_that_was_applied_is_dropped(self) -> None:
        if not self.out and not self.kept:
            assert self.ledger.progress().dropped_offset == self.offset


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)


@given(st.lists(st.sampled_from(["ask", "notice"]), max_size=20))
def test_a_question_without_an_answer_never_lets_go_of_the_first_notice_after_it(steps: list[str]) -> None:
    ledger = Ledger()
    ledger.start_at(0)
    first: int | None = None
    asked = False
    for offset, step in enumerate(steps):
        if step == "ask":
            ledger.ask()
            asked = True
            ledger.pass_over(offset)
        else:
            ledger.apply(offset, revocation("grant/9", seq=offset))
            first = offset if asked and first is None else first
    if first is not None:
        assert ledger.progress().dropped_offset == first - 1
