"""Hints that wait: one per path, serial per path, bounded."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.sync.domain.hints import Hints, LookAt


def at(path: str, trace: str | None = None) -> LookAt:
    return LookAt(path=path, traceparent=trace)


def test_many_hints_for_one_path_are_one_look_in_the_first_ones_trace() -> None:
    hints = Hints(10)
    assert all([hints.offer(at("db", "first")), hints.offer(at("db", "second"))])
    assert hints.take() == at("db", "first")
    assert hints.take() is None


def test_paths_are_looked_at_in_the_order_of_their_first_hints() -> None:
    hints = Hints(10)
    for path in ("a", "b", "a", "c"):
        hints.offer(at(path))
    assert [hint.path for hint in iter(hints.take, None)] == ["a", "b", "c"]


def test_a_hint_during_a_look_waits_for_the_next_one() -> None:
    hints = Hints(10)
    hints.offer(at("db"))
    assert hints.take() == at("db")
    hints.offer(at("db", "again"))
    assert hints.take() is None
    hints.done("db")
    assert hints.take() == at("db", "again")


def test_a_path_being_looked_at_does_not_hold_others_up() -> None:
    hints = Hints(10)
    hints.offer(at("slow"))
    hints.take()
    hints.offer(at("slow"))
    hints.offer(at("quick"))
    assert hints.take() == at("quick")


def test_without_room_the_caller_is_told_and_known_paths_still_coalesce() -> None:
    hints = Hints(1)
    assert hints.offer(at("a"))
    assert not hints.offer(at("b"))
    assert hints.offer(at("a"))


class NothingIsLost(RuleBasedStateMachine):
    """Every hint that was kept is followed by a look that began after it."""

    def __init__(self) -> None:
        super().__init__()
        self.hints = Hints(3)
        self.owed: set[str] = set()
        self.looking: set[str] = set()

    @rule(path=st.sampled_from("abcde"))
    def offer(self, path: str) -> None:
        if self.hints.offer(at(path)):
            self.owed.add(path)
        else:
            assert len(self.hints) == 3

    @rule()
    def take(self) -> None:
        hint = self.hints.take()
        if hint is None:
            assert self.owed <= self.looking
            return
        assert hint.path not in self.looking
        self.owed.remove(hint.path)
        self.looking.add(hint.path)

    @rule(path=st.sampled_from("abcde"))
    def done(self, path: str) -> None:
        if path in self.looking:
            self.looking.remove(path)
            self.hints.done(path)

    @invariant()
    def bounded(self) -> None:
        assert len(self.hints) == len(self.owed) <= 3


TestNothingIsLost = NothingIsLost.TestCase
