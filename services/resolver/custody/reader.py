"""Local values for resolves, and when each was used last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from services.resolver.custody.value_store import Use
from services.resolver.custody.values import LocalValues
from services.resolver.domain.local_values import Slot
from services.resolver.sources.local import LocalValueAway, LocalValueDamaged, LocalValueMissing
from services.resolver.sources.port import ReadValue
from shared.errors import SealInvalid, Unavailable

_log = structlog.get_logger(__name__)

WITHIN_S: Final = 2.0
"""For one value, database included; as a source has."""
USES_EVERY_S: Final = 2.0
"""Uses are written together: one resolve should not cost a write."""


@dataclass(slots=True)
class KeptReader:
    """`LocalReader` on the database. `run` it as a task: it writes down uses."""

    values: LocalValues
    _uses: dict[Use, datetime] = field(default_factory=dict)

    async def read(self, slot: Slot) -> ReadValue:
        """See the port."""
        try:
            async with asyncio.timeout(WITHIN_S):
                opened = await self.values.open(slot)
        except (Unavailable, TimeoutError):
            raise LocalValueAway from None
        except SealInvalid:
            _log.error("local-value-does-not-open", value=slot.id)
            raise LocalValueDamaged from None
        if opened is None:
            raise LocalValueMissing
        return ReadValue(opened.secret, str(opened.version))

    def used(self, slot: Slot, version: str) -> None:
        """See the port."""
        self._uses[slot.id, int(version)] = datetime.now(UTC)

    async def run(self) -> None:
        """Write uses down until cancelled; a process that is killed forgets those of its last seconds."""
        while True:
            await asyncio.sleep(USES_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write down what was used since the last time; again later if the database is away."""
        uses = dict(self._uses)
        if not uses:
            return
        try:
            await self.values.note_use(list(uses), at=max(uses.values()))
        except Unavailable as problem:
            _log.warning("uses-not-noted", reason=problem.detail)
            return
        # Only now, or a write that was cancelled would lose them. What was used meanwhile has another time, and stays.
        self._uses = {use: at for use, at in self._uses.items() if uses.get(use) != at}
