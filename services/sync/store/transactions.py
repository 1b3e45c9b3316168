"""The boundary: opens transactions, takes the locks that their order rests on, commits them or undoes them.

A look at one path holds, until its transaction ends, an advisory lock on (source, path) and a share lock on the
source. So looks at one path are serial across all replicas, what is read from the source after the lock is never
overwritten by what was read before it, and a source can't be deleted under a look.

Locks are always taken in this order, so that they never wait in a circle: path, source, references, the counter of
commits, coverage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from services.sync.domain.commits import Applied, Moment
from services.sync.domain.detection import Known
from services.sync.domain.ports import Sight, Vanished
from services.sync.domain.successors import Appeared
from services.sync.store.drafts import Draft
from services.sync.store.locks import held
from services.sync.store.outages import transaction
from services.sync.store.references import ReferenceStore
from services.sync.store.signatures import Seal
from services.sync.store.sources import SourceStore
from shared.database import Sessions
from shared.events.catalog import SourceRecord
from shared.events.changes import Detection
from shared.outbox.commits import CommitLog

_HOLD: Final = text(
    "SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '10s', true),"
    " pg_advisory_xact_lock(hashtextextended(:place, 0)),"
    " (SELECT id FROM sources WHERE id = :source AND NOT deleted FOR SHARE)"
)
"""One trip for both locks. The select list is evaluated from left to right."""


class PathTransaction:
    """`PathWork` on PostgreSQL."""

    def __init__(self, session: AsyncSession, commits: CommitLog, seal: Seal, *, source_id: str, path: str) -> None:
        self._session = session
        self._commits = commits
        self._seal = seal
        self._references = ReferenceStore(session, seal)
        self._source_id = source_id
        self._path = path
        self._draft: Draft | None = None

    async def known(self) -> tuple[Known, ...]:
        """See `PathWork`."""
        return await self._references.at_path(self._source_id, self._path)

    async def begin(self, detected_by: Detection) -> Moment:
        """See `Work`."""
        self._draft = await Draft.begin(self._commits, self._session, self._seal)
        return self._draft.moment(detected_by)

    async def is_taken(self, name: str) -> bool:
        """See `Work`."""
        return await self._references.is_taken(name)

    async def appeared(self, *, since: datetime) -> tuple[Appeared, ...]:
        """See `PathWork`."""
        return await self._references.appeared(self._source_id, since=since)

    async def vanished(self, *, since: datetime) -> tuple[Vanished, ...]:
        """See `PathWork`."""
        return await self._references.vanished(self._source_id, since=since)

    def put(self, applied: Applied) -> None:
        """See `Work`."""
        if self._draft is None:
            raise RuntimeError("begin the commit first")
        self._draft.put(applied)

    async def flush(self) -> None:
        """Write what was said, if a commit was begun."""
        if self._draft is not None:
            await self._draft.flush()


class PostgresBooks:
    """`Books` on PostgreSQL."""

    def __init__(self, engine: AsyncEngine, sessions: Sessions, commits: CommitLog, seal: Seal) -> None:
        """`engine` gives the connections that hold long locks, `sessions` all others."""
        self._engine = engine
        self._sessions = sessions
        self._commits = commits
        self._seal = seal

    @asynccontextmanager
    async def at(self, source_id: str, path: str) -> AsyncIterator[PathTransaction | None]:
        """See `Books`."""
        async with transaction(self._sessions) as session:
            holding = await session.execute(_HOLD, {"place": f"{source_id}\n{path}", "source": source_id})
            # Deleted while this waited for the path: there is nothing to look at any more.
            if holding.one()[-1] is None:
                yield None
                return
            work = PathTransaction(session, self._commits, self._seal, source_id=source_id, path=path)
            yield work
            await work.flush()

    async def sources(self) -> tuple[SourceRecord, ...]:
        """See `Books`."""
        async with transaction(self._sessions) as session:
            return await SourceStore(session, self._seal).all()

    async def snapshot(self, source_id: str) -> dict[str, tuple[Known, ...]]:
        """See `Books`."""
        async with transaction(self._sessions) as session:
            return await ReferenceStore(session, self._seal).snapshot(source_id)

    @asynccontextmanager
    async def surveying(self, source_id: str, *, wait: bool) -> AsyncIterator[bool]:
        """See `Books`."""
        async with held(self._engine, f"keyfob-survey:{source_id}", wait=wait) as mine:
            yield mine

    async def since_survey_s(self, source_id: str) -> float | None:
        """See `Books`."""
        async with transaction(self._sessions) as session:
            return await SourceStore(session, self._seal).since_survey_s(source_id)

    async def note_sight(self, source_id: str, sight: Sight) -> None:
        """See `Books`."""
        async with transaction(self._sessions) as session:
            store = SourceStore(session, self._seal)
            record = await store.find(source_id)
            # Without a lock at first: nearly every survey finds what it found before, and should make nobody wait.
            if record is not None and record.reachable is not sight.reachable:
                await self._turn(session, source_id, reachable=sight.reachable)
            await store.note_sight(source_id, sight)

    async def _turn(self, session: AsyncSession, source_id: str, *, reachable: bool) -> None:
        record = await SourceStore(session, self._seal).lock(source_id)
        if record is None or record.reachable is reachable:
            return
        draft = await Draft.begin(self._commits, session, self._seal)
        changes = {"seq": draft.seq, "revision": record.revision + 1, "reachable": reachable}
        draft.put_source(record.model_copy(update=changes))
        await draft.flush()

    async def note_feed(self, source_id: str, *, messages: int, changed: int) -> None:
        """See `Books`."""
        async with transaction(self._sessions) as session:
            await SourceStore(session, self._seal).note_feed(source_id, messages=messages, changed=changed)
