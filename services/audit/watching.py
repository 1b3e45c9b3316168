"""Looks for records that instances were told of and that never came: the lost end of a stream.

An echo may be read before its record is, because they stand in different topics. So it waits until everything that
was in `access` when somebody looked has been recorded, by whichever replica; what is not there then is not coming.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from services.audit.domain.echoes import Compared, compare, contradiction, loss
from services.audit.domain.ports import AccessProgress, Clock, Transaction
from shared.bus.outages import is_outage

# A transaction of this size takes milliseconds; others wait for the counter as long.
AT_ONCE: Final = 1_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where `access` ended at a moment."""

    at: datetime
    ends: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class EchoWatch:
    """The loop of one replica; several find the same, and record it once."""

    begin: Transaction
    progress: AccessProgress
    clock: Clock
    every_s: float

    async def run(self) -> None:
        """Look for ever; cancel to stop."""
        mark: Mark | None = None
        while True:
            try:
                mark = await self.look(mark)
            except Exception as error:
                # Wrong and not away: end the process rather than stay blind to losses.
                if not is_outage(error):
                    raise
                _log.warning("echoes not compared", error=type(error).__name__)
            await asyncio.sleep(self.every_s)

    async def look(self, mark: Mark | None) -> Mark:
        """Settle what is older than `mark`, if everything up to it was recorded; the mark to look at next."""
        if mark is None:
            return await self._mark()
        if not await self.progress.reached(mark.ends):
            return mark
        # Before settling: should the broker go away here, the same mark is looked at again.
        following = await self._mark()
        while await self._settle(mark.at) == AT_ONCE:
            continue
        return following

    async def _mark(self) -> Mark:
        # The time first: what is remembered before it was told of records before these ends.
        at = self.clock()
        return Mark(at, await self.progress.ends())

    async def _settle(self, before: datetime) -> int:
        async with self.begin() as journal:
            due = await journal.awaited(before=before, limit=AT_ONCE)
            if due:
                compared = compare(due, await journal.hashes({echo.key for echo in due}))
                self._say(compared)
                await journal.write([*map(contradiction, compared.contradicted), *map(loss, compared.missing)])
                # In the same transaction: an echo is forgotten only if what came of it is on record.
                await journal.forget_echoes(due)
            return len(due)

    def _say(self, compared: Compared) -> None:
        if compared.missing or compared.contradicted:
            _log.error("access-records-lost", missing=len(compared.missing), contradicted=len(compared.contradicted))
