"""Waking everybody who waits for something to change, without saying what."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Pulse:
    """`beat` wakes whoever waits now. Belongs to one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def beat(self) -> None:
        """Wake all who wait."""
        # A new event for those who come later, so that setting never needs a clearing that somebody could miss.
        current, self._next = self._next, asyncio.Event()
        current.set()

    def listen(self) -> asyncio.Event:
        """The next beat: take it before looking, wait for it after, and none is missed."""
        return self._next


async def first_of(*beats: asyncio.Event, timeout_s: float) -> None:
    """Return at the first beat, or after `timeout_s` seconds."""
    waiting = [asyncio.ensure_future(beat.wait()) for beat in beats]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(timeout_s, 0)):
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Whoever lost would wait for ever, one task more at each look.
        for future in waiting:
            future.cancel()
