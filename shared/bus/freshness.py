"""Whether what a reader has applied is provably current.

A reader is fresh when its position has passed an end offset that it *asked for* in the last `bound_s`, on its own
monotonic clock. The time of the question counts, not of the answer: an answer that took two seconds says nothing
about those two seconds. No answer, no freshness: silence fails closed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
"""Seconds on a clock that never steps back."""

BOUND_S = 3.0
EVERY_S = 1.0
ANSWER_WITHIN_S = 2.0


class Freshness:
    """Asks for the end offset every second and compares it with the position that has been applied."""

    def __init__(
        self,
        *,
        ask_end: Callable[[], Awaitable[int]],
        position: Callable[[], int],
        clock: Clock = time.monotonic,
        bound_s: float = BOUND_S,
    ) -> None:
        self._ask_end = ask_end
        self._position = position
        self._clock = clock
        self._bound_s = bound_s
        self._open: deque[tuple[float, int]] = deque()
        self._proven_at: float | None = None
        self._run_of_topic = 0

    async def run(self, *, every_s: float = EVERY_S) -> None:
        """Ask for ever; cancel to stop. A question without an answer is dropped after `ANSWER_WITHIN_S`."""
        while True:
            started = self._clock()
            await self.ask()
            await asyncio.sleep(max(0.0, every_s - (self._clock() - started)))

    async def ask(self) -> None:
        """One question. Failing to get an answer is not an error here: freshness just runs out."""
        asked_at, asked_of = self._clock(), self._run_of_topic
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                end = await self._ask_end()
        except Exception:  # noqa: BLE001 - whatever went wrong, nothing was proved
            return
        # Otherwise the topic was started over meanwhile, and the answer is an offset of the run before.
        if asked_of == self._run_of_topic:
            self._open.append((asked_at, end))
            self._settle()

    def is_fresh(self, now: float | None = None) -> bool:
        """True when the position passed an end that was asked for within the bound. Never waits."""
        age = self.age_s(now)
        return age is not None and age <= self._bound_s

    def age_s(self, now: float | None = None) -> float | None:
        """Seconds since the newest question whose end has been passed; None when there is none."""
        self._settle()
        if self._proven_at is None:
            return None
        return (self._clock() if now is None else now) - self._proven_at

    def reset(self) -> None:
        """Forget everything: what was proved belonged to another run of the topic."""
        self._open.clear()
        self._proven_at = None
        self._run_of_topic += 1

    def _settle(self) -> None:
        position = self._position()
        # Oldest first: ends only grow, so behind one that is not passed none is.
        while self._open and self._open[0][1] <= position:
            self._proven_at = self._open.popleft()[0]
        # What was asked longer ago than the bound can't make anything fresh any more.
        horizon = self._clock() - self._bound_s
        while self._open and self._open[0][0] < horizon:
            self._open.popleft()
