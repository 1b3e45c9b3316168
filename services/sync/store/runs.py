"""`Runs` on PostgreSQL: manual syncs, and who works on which."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import RowMapping, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from services.sync.domain.ports import Run, RunPart
from services.sync.store.locks import held
from services.sync.store.outages import transaction
from services.sync.store.tables import runs
from shared.database import Sessions

_ALL: Final = (runs.c.id, runs.c.state, runs.c.asked_by, runs.c.asked_at, runs.c.ended_at, runs.c.parts)


class PostgresRuns:
    """Manual syncs."""

    def __init__(self, engine: AsyncEngine, sessions: Sessions) -> None:
        """`engine` gives the connections that hold long locks, `sessions` all others."""
        self._engine = engine
        self._sessions = sessions

    async def open(self, sources: Collection[str], *, asked_by: str) -> Run:
        """See `Runs`. A run of nothing is done at once."""
        parts = [RunPart(source=source, state="waiting") for source in sources]
        values = {
            "id": f"sync/{uuid.uuid4().hex}",
            "state": "running" if parts else "done",
            "asked_by": asked_by,
            "asked_at": func.now(),
            "ended_at": None if parts else func.now(),
            "parts": [asdict(part) for part in parts],
        }
        async with transaction(self._sessions) as session:
            row = (await session.execute(insert(runs).values(values).returning(*_ALL))).mappings().one()
            return _run(row)

    async def get(self, run_id: str) -> Run | None:
        """See `Runs`."""
        found = await self._select(select(*_ALL).where(runs.c.id == run_id))
        return found[0] if found else None

    async def unfinished(self) -> tuple[Run, ...]:
        """See `Runs`."""
        return await self._select(select(*_ALL).where(runs.c.state == "running").order_by(runs.c.asked_at))

    @asynccontextmanager
    async def working(self, run_id: str) -> AsyncIterator[bool]:
        """See `Runs`."""
        # Not waited for: whoever holds it will end the run, and if it dies this is tried again.
        async with held(self._engine, f"keyfob-run:{run_id}", wait=False) as mine:
            yield mine

    async def note(self, run_id: str, parts: Iterable[RunPart], *, ended: bool) -> None:
        """See `Runs`."""
        noted = list(parts)
        values: dict[str, object] = {"parts": [asdict(part) for part in noted]}
        if ended:
            failed = any(part.state == "failed" for part in noted)
            values |= {"state": "failed" if failed else "done", "ended_at": func.now()}
        async with transaction(self._sessions) as session:
            await session.execute(update(runs).where(runs.c.id == run_id).values(values))

    async def _select(self, query: Select[Any]) -> tuple[Run, ...]:
        async with transaction(self._sessions) as session:
            return tuple([_run(row) for row in (await session.execute(query)).mappings()])


def _run(row: RowMapping) -> Run:
    return Run(
        id=row["id"],
        state=row["state"],
        asked_by=row["asked_by"],
        asked_at=row["asked_at"],
        ended_at=row["ended_at"],
        parts=tuple(RunPart(**part) for part in row["parts"]),
    )
