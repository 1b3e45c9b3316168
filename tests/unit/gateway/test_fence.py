"""Sixty seconds without a tick of policy: on either clock, and for no forged or repeated one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.client.fence import TickFence
from services.gateway.client.leases import Moment

START = Moment(monotonic=1000.0, wall=1_700_000_000.0)


def later(*, monotonic: float = 0.0, wall: float = 0.0) -> Moment:
    return Moment(START.monotonic + monotonic, START.wall + wall)


def heard() -> TickFence:
    fence = TickFence(bound_s=60)
    assert fence.hear(seq=1, signed_at=START.wall, moment=START)
    return fence


def test_it_is_closed_until_the_first_tick() -> None:
    assert TickFence().closed(START)


def test_what_remains_is_counted_on_the_clock_that_ran_further() -> None:
    assert heard().remaining_s(later(monotonic=10, wall=20)) == 40
    assert heard().remaining_s(later(monotonic=30, wall=-20)) == 30
    assert TickFence().remaining_s(START) < 0


def test_it_closes_after_the_bound_on_the_monotonic_clock_although_the_wall_clock_was_set_back() -> None:
    assert not heard().closed(later(monotonic=60, wall=-3600))
    assert heard().closed(later(monotonic=60.1, wall=-3600))


def test_it_closes_after_the_bound_on_the_wall_clock_although_the_machine_slept() -> None:
    assert heard().closed(later(monotonic=1, wall=60.1))


def test_a_tick_that_was_long_on_its_way_counts_from_when_it_was_signed() -> None:
    fence = TickFence(bound_s=60)
    fence.hear(seq=1, signed_at=START.wall - 50, moment=START)
    assert not fence.closed(later(monotonic=9, wall=9))
    assert fence.closed(later(monotonic=11, wall=11))


def test_a_repeated_tick_proves_nothing() -> None:
    fence = heard()
    assert not fence.hear(seq=1, signed_at=START.wall, moment=later(monotonic=50, wall=50))
    assert fence.closed(later(monotonic=61, wall=0))


def test_a_newer_tick_opens_it_again() -> None:
    fence = heard()
    assert fence.closed(later(monotonic=61, wall=61))
    assert fence.hear(seq=2, signed_at=START.wall + 61, moment=later(monotonic=61, wall=61))
    assert not fence.closed(later(monotonic=62, wall=62))


@given(st.floats(0, 200), st.floats(-200, 200))
def test_it_is_closed_as_soon_as_either_clock_says_so(monotonic: float, wall: float) -> None:
    assert heard().closed(later(monotonic=monotonic, wall=wall)) == (
        START.monotonic + monotonic - START.monotonic > 60 or START.wall + wall - START.wall > 60
    )
