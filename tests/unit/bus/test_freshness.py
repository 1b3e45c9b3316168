"""Fresh means: the position passed an end that was asked for within the bound. Silence is never fresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.freshness import BOUND_S, Freshness
from tests.fakes.clock import FakeClock
from tests.waiting import until


@dataclass(slots=True)
class Topic:
    """An end that answers after a while, and a reader's position."""

    clock: FakeClock = field(default_factory=FakeClock)
    end: int = 0
    position: int = 0
    answer_takes_s: float = 0.0
    away: bool = False

    async def ask_end(self) -> int:
        end = self.end
        self.clock.advance(self.answer_takes_s)
        if self.away:
            raise ConnectionError
        return end

    def freshness(self) -> Freshness:
        return Freshness(ask_end=self.ask_end, position=lambda: self.position, clock=self.clock)


def test_before_the_first_question_nothing_is_fresh() -> None:
    topic = Topic()
    assert not topic.freshness().is_fresh()
    assert topic.freshness().age_s() is None


async def test_a_reader_at_the_end_is_fresh() -> None:
    topic = Topic(end=7, position=7)
    freshness = topic.freshness()
    await freshness.ask()
    assert freshness.is_fresh()
    assert freshness.age_s() == 0


async def test_a_reader_that_lags_is_not_fresh() -> None:
    topic = Topic(end=7, position=6)
    freshness = topic.freshness()
    await freshness.ask()
    assert not freshness.is_fresh()


async def test_catching_up_makes_it_fresh_as_of_the_question() -> None:
    topic = Topic(end=7, position=6)
    freshness = topic.freshness()
    await freshness.ask()
    topic.clock.advance(2)
    topic.position = 7
    assert freshness.age_s() == 2
    assert freshness.is_fresh()


async def test_freshness_ends_when_asking_stops() -> None:
    topic = Topic(end=7, position=7)
    freshness = topic.freshness()
    await freshness.ask()
    topic.clock.advance(BOUND_S)
    assert freshness.is_fresh()
    topic.clock.advance(0.001)
    assert not freshness.is_fresh()


async def test_freshness_ends_when_nobody_answers() -> None:
    topic = Topic(end=7, position=7)
    freshness = topic.freshness()
    await freshness.ask()
    topic.away = True
    for _ in range(4):
        topic.clock.advance(1)
        await freshness.ask()
    assert not freshness.is_fresh()


async def test_the_time_of_the_question_counts_not_that_of_the_answer() -> None:
    topic = Topic(end=7, position=7, answer_takes_s=2)
    freshness = topic.freshness()
    await freshness.ask()
    assert freshness.age_s() == 2
    topic.clock.advance(1.5)
    assert not freshness.is_fresh()


async def test_an_end_that_is_reached_too_late_proves_nothing() -> None:
    topic = Topic(end=7, position=6)
    freshness = topic.freshness()
    await freshness.ask()
    topic.clock.advance(BOUND_S + 1)
    topic.position = 7
    assert not freshness.is_fresh()


async def test_a_position_that_fell_back_is_not_fresh_by_what_it_had_proved() -> None:
    topic = Topic(end=7, position=7)
    freshness = topic.freshness()
    await freshness.ask()
    freshness.reset()
    assert not freshness.is_fresh()


async def test_a_question_asked_before_a_restart_proves_nothing_after_it() -> None:
    topic = Topic(end=7, position=7)
    asked, answer = asyncio.Event(), asyncio.Event()

    async def ask_end() -> int:
        asked.set()
        await answer.wait()
        return 7

    freshness = Freshness(ask_end=ask_end, position=lambda: topic.position, clock=topic.clock)
    asking = asyncio.create_task(freshness.ask())
    await asked.wait()
    freshness.reset()
    answer.set()
    await asking
    assert not freshness.is_fresh()


@pytest.fixture
async def asking() -> AsyncIterator[tuple[Topic, Freshness]]:
    topic = Topic(end=3, position=3)
    freshness = topic.freshness()
    task = asyncio.create_task(freshness.run(every_s=0.001))
    yield topic, freshness
    task.cancel()
    await asyncio.wait({task})


async def test_the_task_keeps_asking_through_failures(asking: tuple[Topic, Freshness]) -> None:
    topic, freshness = asking
    await until(freshness.is_fresh)
    topic.away = True
    topic.clock.advance(10)
    assert not freshness.is_fresh()
    topic.away = False
    await until(freshness.is_fresh)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_fresh_exactly_when_an_end_asked_for_within_the_bound_was_passed_in_time(
    steps: list[tuple[float, int, int]],
) -> None:
    topic = Topic()
    freshness = topic.freshness()
    asked: list[tuple[float, int, float | None]] = []
    for pause, written, read in steps:
        topic.clock.advance(pause)
        topic.end += written
        topic.position = min(topic.end, topic.position + read)
        asyncio.run(freshness.ask())
        asked.append((topic.clock(), topic.end, None))
        proven = any(topic.clock() - at <= BOUND_S and end <= topic.position for at, end, _ in asked)
        assert freshness.is_fresh() == proven
