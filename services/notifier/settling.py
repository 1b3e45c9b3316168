"""Writes down what members proved, so that it outlives the topics, and lets go of what is old.

What is written is only ever "proved"; that a silent member expired is computed from the clock when somebody asks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from services.notifier.domain.convergence import Bounds, gateway_progress
from services.notifier.domain.ports import Clock, Transaction
from services.notifier.domain.receipts import Heard
from services.notifier.pulse import Pulse, first_of
from shared.bus.outages import is_outage

# Deleting is cheap by index and nobody waits for it; an hour is a small part of the days that are kept.
TIDY_EVERY: Final = timedelta(hours=1)
# For what other replicas noted: their beats are not heard here.
LOOK_AT_LEAST_EVERY_S: Final = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settling:
    """The loop of one replica; several write the same facts."""

    begin: Transaction
    heard: Heard
    changed: Pulse
    noted: Pulse
    bounds: Bounds
    clock: Clock
    every_s: float
    keep: timedelta

    async def run(self) -> None:
        """Settle for ever, at most once in `every_s` seconds and only when something changed."""
        tidied = self.clock()
        while True:
            # Before settling: what arrives while it runs is settled by the next turn.
            beats = self.changed.listen(), self.noted.listen()
            try:
                await self.settle()
                if self.clock() - tidied > TIDY_EVERY:
                    await self.tidy()
                    tidied = self.clock()
            except Exception as error:
                # What is wrong rather than away ends the process; a loop that swallowed it would look alive.
                if not is_outage(error):
                    raise
                _log.warning("not settled", error=type(error).__name__)
            # Fifty instances answer one notice within moments: one writing for all of them.
            await asyncio.sleep(self.every_s)
            await first_of(*beats, timeout_s=LOOK_AT_LEAST_EVERY_S)

    async def settle(self) -> None:
        """Write what is proved by now."""
        async with self.begin() as notes:
            converged = await notes.settle(gateway_progress(self.heard, bounds=self.bounds), self.heard.resolvers())
        if converged:
            _log.info("notices converged", count=converged)

    async def tidy(self) -> None:
        """Let go of what is older than it is kept."""
        async with self.begin() as notes:
            await notes.forget(before=self.clock() - self.keep)
