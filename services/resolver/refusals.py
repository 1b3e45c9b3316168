"""How many records refusals may make where nobody proved to be a person: a flood must not fill the log.

Whoever reaches the port can be refused, as often as they like, and a gateway passes on whatever token it is shown. So
refusals before a subject is proved have a budget, one for each instance that proved itself and one for everybody else:
the first ones of a window are recorded each for itself, the rest together when it ends, by number. What somebody sends
without any proof can't use up the room of an instance.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from services.resolver.entries import Entry
from services.resolver.records import AccessLog

WINDOW_S: Final = 10.0
MOST_IN_WINDOW: Final = 20
"""Enough to see what goes wrong, at most 17 MB a day and replica for those who prove nothing."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Window:
    """What one budget was spent on since it began."""

    ends: asyncio.TimerHandle
    recorded: int = 0
    together: int = 0
    newest: Entry | None = None


@dataclass(slots=True)
class RefusalBudget:
    """Decides which refusals get a record of their own. Belongs to one event loop; no method waits."""

    log: AccessLog
    window_s: float = WINDOW_S
    most: int = MOST_IN_WINDOW
    _windows: dict[str, _Window] = field(default_factory=dict)

    def admits(self, entry: Entry) -> bool:
        """Whether to record `entry` now; if not it is counted, and told of when its window ends."""
        # Named only where a signature held: nobody spends an instance's budget by writing down its id.
        who = entry.instance_id or ""
        window = self._windows.get(who)
        if window is None:
            ends = asyncio.get_running_loop().call_later(self.window_s, self._end, who)
            window = self._windows[who] = _Window(ends)
        if window.recorded < self.most:
            window.recorded += 1
            return True
        window.together += 1
        window.newest = entry
        return False

    def close(self) -> None:
        """Tell now what is still to be told."""
        for who in list(self._windows):
            self._windows[who].ends.cancel()
            self._end(who)

    def _end(self, who: str) -> None:
        window = self._windows.pop(who)
        if window.newest is None:
            return
        _log.warning("refusals recorded together", instance=who, refusals=window.together)
        # One of them stands for the others.
        self.log.write(replace(window.newest, unrecorded=window.together - 1), kept=True)
