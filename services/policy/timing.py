"""What policy does by itself: a signed tick a second, and grants whose windows open and close.

Any number of replicas may run this. Works are serial, and each looks again inside its own: so one tick an interval
and one event a window edge, whoever comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.policy.commands import windows
from services.policy.ledger import PgLedger
from shared.errors import KeyfobError, Unavailable, cut

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Ticker:
    """Ticks; `age_s` tells readiness how long ago this replica last saw a tick in the database."""

    ledger: PgLedger
    every_s: float
    seen_at: float | None = None

    async def run(self) -> None:
        """Tick for ever; cancel to stop."""
        await _repeat(self.once, every_s=self.every_s, what="tick")

    async def once(self) -> None:
        """One tick, unless another replica has just made it."""
        async with self.ledger.open(windows.clock()) as work:
            if await work.is_tick_due(self.every_s):
                work.tick()
        self.seen_at = asyncio.get_running_loop().time()

    def reason(self) -> str | None:
        """Why ticks are not made, if so."""
        if self.seen_at is None:
            return "no tick yet"
        age = asyncio.get_running_loop().time() - self.seen_at
        # Five intervals: well before resolvers refuse (15 s), and not at every hiccup of the database.
        return None if age < max(5.0, 5 * self.every_s) else f"no tick for {age:.0f} s"


@dataclass(frozen=True, slots=True)
class Windows:
    """Turns the grants whose moment has come."""

    ledger: PgLedger
    every_s: float

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        await _repeat(self.once, every_s=self.every_s, what="windows")

    async def once(self) -> None:
        """Turn every grant that is due, one commit each."""
        while await self.ledger.is_anything_due():
            async with self.ledger.open(windows.clock()) as work:
                grant = await work.due_grant()
                # Another replica was first, or has it in hand: whatever is left is seen at the next look.
                if grant is None:
                    return
                await windows.turn(work, grant)


async def _repeat(step: Callable[[], Awaitable[None]], *, every_s: float, what: str) -> None:
    """Take a step at even intervals. A database that is away makes it late, nothing more."""
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await step()
        # Other exceptions are mistakes of ours and end the service, which a supervisor starts again.
        except Unavailable:
            log.warning("interval-missed", what=what)
        except KeyfobError as error:
            # A row that somebody changed must not stop ticks: without them every resolver refuses.
            log.critical("interval-failed", what=what, kind=error.kind, error=cut(error))
        # Less the step's own time, so that ticks keep their pace; never nothing, or a slow database gets no air.
        await asyncio.sleep(max(0.05, every_s - (loop.time() - started)))
