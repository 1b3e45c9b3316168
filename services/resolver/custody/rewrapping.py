"""Bringing every value to the current key: in batches, by one replica at a time, while everything else goes on.

A batch is one transaction: it reads wraps, makes new ones, and writes each where the old one still stands, together
with how many there were. So a process may be killed at any point, and whoever goes on finds just the rows that are
left: none is rewrapped twice. A value that somebody replaces meanwhile is sealed under the current key already
(`transactions`), and its old wrap is no longer there to be compared.

A row that does not open is left as it is, counted, and keeps its key from being retired.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.resolver.custody.facts import Rotation, Wrapped
from services.resolver.custody.standing import Standing
from services.resolver.custody.store import CustodyStore
from services.resolver.custody.transactions import change_id
from shared.custody import AlreadyCurrent, Keyring, Rewrapped
from shared.errors import SealInvalid, Unavailable
from shared.events.changes import Actor
from shared.events.custody import KeyAction, KeyChange

_log = structlog.get_logger(__name__)

POLL_S: Final = 1.0
"""Between looks for a rotation that somebody else began, or left behind."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of one: how many rows it wrote, how many did not open, and behind which id the next one begins."""

    written: int
    damaged: int
    last: str


@dataclass(slots=True)
class Rewrapper:
    """Finishes rotations. `run` it as a task; `begun` wakes it."""

    standing: Standing
    batch: int = 100
    """Rows in one transaction: some 4 ms of computing, during which nothing else is answered."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Look for unfinished rotations until cancelled."""
        while True:
            await self.standing.ready.wait()
            try:
                await self._look()
            except Unavailable as problem:
                _log.warning("rotation-waits", reason=problem.detail)
            try:
                async with asyncio.timeout(POLL_S):
                    await self.begun.wait()
            except TimeoutError:
                pass
            self.begun.clear()

    async def _look(self) -> None:
        if await self._unfinished() is None:
            return
        async with self.standing.books.rewrapping() as mine:
            # Again, now that nobody else can finish it: by then it may be another one.
            if mine and (rotation := await self._unfinished()) is not None:
                await self.finish(rotation)

    async def _unfinished(self) -> Rotation | None:
        async with self.standing.books.open() as store:
            rotation = await store.rotation()
        return None if rotation is None or rotation.finished_at is not None else rotation

    async def finish(self, rotation: Rotation) -> None:
        """Rewrap what is left of one rotation; only one replica may at a time."""
        # From the first id on: whoever goes on after a kill meets the damaged rows again, and counts them anew.
        ring, damaged, after = await self.standing.ring(), 0, ""
        while True:
            batch = await self._one_batch(rotation.n, ring, after=after)
            if batch is None:
                break
            damaged, after = damaged + batch.damaged, batch.last
            # Whoever resolves meanwhile comes first.
            await asyncio.sleep(0)
        await self._close(rotation, ring.current.key_id, damaged)

    async def _one_batch(self, n: int, ring: Keyring, *, after: str) -> Batch | None:
        async with self.standing.books.open() as store:
            rows = await store.not_under(ring.current.key_id, after=after, most=self.batch)
            if not rows:
                return None
            changed = [one for row in rows if (one := _rewrapped(row, ring)) is not None]
            written = await _write(store, n, ring.current.key_id, changed)
        return Batch(written, len(rows) - len(changed), rows[-1].id)

    async def _close(self, rotation: Rotation, key_id: str, damaged: int) -> None:
        async with self.standing.books.commit() as work:
            newest = await work.store.rotation()
            # Another replica may have finished it between our look and our lock.
            if newest is None or newest.n != rotation.n or newest.finished_at is not None:
                return
            await work.store.finish_rotation(rotation.n, damaged=damaged, at=work.at)
            work.say(
                KeyChange(
                    id=change_id(),
                    seq=work.seq,
                    action=KeyAction.REWRAPPED,
                    key_id=key_id,
                    values=newest.done,
                    damaged=damaged,
                    actor=Actor(idp="keyfob", subject=self.standing.replica_id),
                    at=work.at,
                )
            )
        _log.info("rotation-finished", key=key_id, rewrapped=newest.done, damaged=damaged)


async def _write(store: CustodyStore, n: int, key_id: str, changed: list[tuple[str, bytes, bytes]]) -> int:
    if not changed:
        return 0
    # Fewer than were given, where somebody replaced or deleted a value meanwhile: those need no new wrap.
    written = await store.put_wraps(key_id, changed)
    await store.advance(n, done=written)
    return written


def _rewrapped(row: Wrapped, ring: Keyring) -> tuple[str, bytes, bytes] | None:
    """(id, old wrap, new wrap); None for a row that does not open."""
    try:
        match ring.rewrap(row.wrap, context=row.context):
            case Rewrapped(wrap):
                return row.id, row.wrap, wrap
            case AlreadyCurrent():
                # Its column names another key than its wrap: only somebody else can have written that.
                return None
    except SealInvalid:
        return None
