"""Hints that wait for a look: one per path, however many came, oldest first, and never two looks at one path at once.

Serial per path, parallel across paths. A hint that arrives while its path is being looked at waits for the next
look: the present one may have read before the change. Bounded: beyond `capacity` a hint is not kept, and the caller
asks for a survey of the whole source instead.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAt:
    """A path to look at. `traceparent` is of the first hint that asked, so that one trace tells the whole story."""

    path: str
    traceparent: str | None = None


class Hints:
    """The hints of one source. Not for several threads; every call is immediate."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: OrderedDict[str, LookAt] = OrderedDict()
        self._looking: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, hint: LookAt) -> bool:
        """Keep a hint, or let one that waits already stand for it. False when there is no room."""
        if hint.path in self._waiting:
            return True
        # After the look for one that waits: a full queue still takes what it already holds.
        if len(self._waiting) >= self._capacity:
            return False
        self._waiting[hint.path] = hint
        return True

    def take(self) -> LookAt | None:
        """The oldest hint whose path nobody is looking at; the caller says `done` when its look is over."""
        for path, hint in self._waiting.items():
            if path not in self._looking:
                del self._waiting[path]
                self._looking.add(path)
                return hint
        return None

    def done(self, path: str) -> None:
        """The look at `path` is over, however it ended."""
        self._looking.discard(path)

    def clear(self) -> None:
        """Forget what waits: a survey will look at everything."""
        self._waiting.clear()
