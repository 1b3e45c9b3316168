"""Uses of local values are written down late, but none is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from services.resolver.custody.reader import KeptReader
from services.resolver.custody.value_store import Use
from services.resolver.domain.local_values import Owner, Slot
from shared.errors import Unavailable
from shared.events.policy import LocalOwner

SLOT = Slot(Owner(LocalOwner.PROFILE, "profile/a"), "server/one", "FIELD")
OTHER = Slot(Owner(LocalOwner.PROFILE, "profile/a"), "server/two", "FIELD")


@dataclass(slots=True)
class Written:
    """`LocalValues` as far as uses go; a write waits for `go`, then fails with `problem` if there is one."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    problem: Exception | None = None
    uses: list[Use] = field(default_factory=list)

    async def note_use(self, uses: Sequence[Use], *, at: datetime) -> None:
        """Write uses down."""
        self.begun.set()
        await self.go.wait()
        if self.problem is not None:
            raise self.problem
        self.uses += uses


async def test_uses_whose_write_was_cancelled_are_written_by_the_next_one() -> None:
    written = Written()
    reader = KeptReader(cast("Any", written))
    reader.used(SLOT, "1")
    flushing = asyncio.create_task(reader.flush())
    await written.begun.wait()
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    written.go.set()
    await reader.flush()
    await reader.flush()
    assert written.uses == [(SLOT.id, 1)]


async def test_what_is_used_during_a_write_is_written_by_the_next_one() -> None:
    written = Written()
    reader = KeptReader(cast("Any", written))
    reader.used(SLOT, "1")
    flushing = asyncio.create_task(reader.flush())
    await written.begun.wait()
    reader.used(OTHER, "3")
    written.go.set()
    await flushing
    await reader.flush()
    assert written.uses == [(SLOT.id, 1), (OTHER.id, 3)]


async def test_uses_are_kept_while_the_database_is_away() -> None:
    written = Written(problem=Unavailable("away"))
    written.go.set()
    reader = KeptReader(cast("Any", written))
    reader.used(SLOT, "1")
    await reader.flush()
    written.problem = None
    await reader.flush()
    assert written.uses == [(SLOT.id, 1)]
