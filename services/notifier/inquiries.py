"""Answers "who may still use the old value?", now or as soon as nobody can."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from services.notifier.domain.convergence import Bounds, Convergence, convergence, next_bound
from services.notifier.domain.ports import Clock, Noted, Transaction
from services.notifier.domain.receipts import Heard
from services.notifier.handlers import Quiet
from services.notifier.pulse import Pulse, first_of

LOOK_AGAIN_S: Final = 0.25
"""How late this replica learns of a notice that another one noted, or of a bound while it is itself behind."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A notice, and where everybody stands."""

    noted: Noted
    state: Convergence


@dataclass(frozen=True, slots=True)
class Inquiries:
    """What people and their tools ask."""

    begin: Transaction
    heard: Heard
    changed: Pulse
    noted: Pulse
    quiet: Quiet
    bounds: Bounds
    clock: Clock

    def state_of(self, noted: Noted) -> Convergence:
        """Where everybody stands on one notice now."""
        # Not later than we have heard of: who seems silent since then may have spoken, and we were deaf.
        now = min(self.clock(), self.heard.complete_until)
        return convergence(noted.published, self.heard, noted.settled, now=now, bounds=self.bounds)

    async def newest(self, *, limit: int, before_offset: int | None) -> list[Answer]:
        """Notices, newest first."""
        async with self.begin() as notes:
            found = await notes.newest(limit=limit, before_offset=before_offset)
        return [Answer(noted, self.state_of(noted)) for noted in found]

    async def find(self, notice_or_event: str) -> Answer | None:
        """One notice by its id or its cause's."""
        async with self.begin() as notes:
            noted = await notes.find(notice_or_event)
        return None if noted is None else Answer(noted, self.state_of(noted))

    async def converged(self, notice_or_event: str, *, wait_s: float) -> Answer | None:
        """Where everybody stands once it converged, or after `wait_s` seconds; None if there is no notice by then."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        noted = await self._noted(notice_or_event, deadline)
        if noted is None:
            return None
        while True:
            # Taken before looking, so that a receipt that arrives in between still wakes us.
            changed = self.changed.listen()
            state = self.state_of(noted)
            left = deadline - loop.time()
            if state.converged or left <= 0:
                return Answer(noted, state)
            bound = next_bound(state)
            # No receipt announces that a silent member expired: its bound is a time to look again.
            expires_in = left if bound is None else (bound - self.clock()).total_seconds()
            await first_of(changed, timeout_s=min(left, max(expires_in, LOOK_AGAIN_S)))

    async def _noted(self, notice_or_event: str, deadline: float) -> Noted | None:
        loop = asyncio.get_running_loop()
        while True:
            # As above: first listen, then look.
            noted_next = self.noted.listen()
            async with self.begin() as notes:
                noted = await notes.find(notice_or_event)
            left = deadline - loop.time()
            if noted is not None or left <= 0 or notice_or_event in self.quiet:
                return noted
            await first_of(noted_next, timeout_s=min(left, LOOK_AGAIN_S))
