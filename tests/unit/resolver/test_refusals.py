"""Refusals are on record, also when they are many: the first each for itself, the others by their number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.resolver.entries import Entry
from services.resolver.refusals import RefusalBudget
from shared.events.access import Phase
from tests.fakes.resolving import FakeLog
from tests.waiting import until


def refused(reason: str = "assertion-invalid:malformed", *, instance: str | None = None) -> Entry:
    return Entry(phase=Phase.REFUSED, resolution_id="resolution/1", instance_id=instance, reason=reason)


def budget(log: FakeLog, *, window_s: float = 60, most: int = 3) -> RefusalBudget:
    return RefusalBudget(log, window_s=window_s, most=most)


async def test_the_first_ones_of_a_window_have_records_of_their_own() -> None:
    spent = budget(FakeLog())
    assert [spent.admits(refused()) for _ in range(5)] == [True, True, True, False, False]
    spent.close()


async def test_the_others_are_told_together_when_the_window_ends() -> None:
    log = FakeLog()
    spent = budget(log, window_s=0.01)
    for number in range(8):
        spent.admits(refused(f"reason-{number}"))
    assert log.entries == []
    await until(lambda: log.entries)
    assert [(one.reason, one.unrecorded) for one in log.entries] == [("reason-7", 4)]
    assert spent.admits(refused()), "and a new window begins"
    spent.close()


async def test_a_window_in_which_all_had_their_own_says_nothing_more() -> None:
    log = FakeLog()
    spent = budget(log)
    spent.admits(refused())
    spent.close()
    assert log.entries == []


async def test_strangers_do_not_use_up_the_room_of_an_instance() -> None:
    spent = budget(FakeLog())
    for _ in range(100):
        spent.admits(refused())
    assert spent.admits(refused(instance="instance/1"))
    for _ in range(100):
        spent.admits(refused(instance="instance/1"))
    assert spent.admits(refused(instance="instance/2"))
    spent.close()


async def test_a_clean_end_leaves_nothing_untold() -> None:
    log = FakeLog()
    spent = budget(log)
    for _ in range(4):
        spent.admits(refused())
        spent.admits(refused(instance="instance/1"))
    spent.close()
    assert sorted((one.instance_id or "", one.unrecorded) for one in log.entries) == [("", 0), ("instance/1", 0)]


@given(st.lists(st.sampled_from([None, "instance/1", "instance/2"]), max_size=200), st.integers(1, 5))
async def test_every_refusal_is_told_of_and_no_budget_is_exceeded(who: list[str | None], most: int) -> None:
    log = FakeLog()
    spent = budget(log, most=most)
    own = [one for one in who if spent.admits(refused(instance=one))]
    spent.close()
    assert len(own) + sum(1 + one.unrecorded for one in log.entries) == len(who)
    assert all(own.count(one) <= most for one in set(who))
    assert len(log.entries) <= len(set(who))
