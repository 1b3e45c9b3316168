"""`Views` on PostgreSQL: what people read. Good to look at; nothing is decided or signed from it."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, and_, case, func, select

from services.sync.domain.detection import GONE
from services.sync.domain.ports import CoverageView, ReferenceView, Wanted
from services.sync.store.outages import transaction
from services.sync.store.signatures import Seal
from services.sync.store.sources import SourceStore
from services.sync.store.tables import coverage, references, sources
from shared.database import Sessions
from shared.events.catalog import ReferenceState, SourceRecord

_HIDDEN: Final = and_(references.c.state == ReferenceState.ACTIVE.value, ~sources.c.reachable)
_STATE: Final = case((_HIDDEN, ReferenceState.SOURCE_UNREACHABLE.value), else_=references.c.state)


def _references() -> Select[Any]:
    columns = (
        references.c.id,
        references.c.name,
        sources.c.name.label("source"),
        references.c.source_id,
        references.c.path,
        references.c.key,
        references.c.version,
        _STATE.label("state"),
        references.c.successor_id,
        references.c.owner,
        references.c.description,
        references.c.changed_at,
        references.c.seq,
    )
    joined = references.join(sources, references.c.source_id == sources.c.id)
    return select(*columns).select_from(joined).where(~references.c.deleted)


def _counted(condition: ColumnElement[bool], label: str) -> ColumnElement[int]:
    return func.count(references.c.id).filter(condition).label(label)


def _coverage() -> Select[Any]:
    columns = (
        sources.c.name.label("source"),
        sources.c.id.label("source_id"),
        sources.c.reachable,
        coverage.c.why,
        coverage.c.surveyed_at,
        coverage.c.survey_s,
        coverage.c.seen,
        coverage.c.denied_folders,
        coverage.c.older,
        coverage.c.keys_visible,
        coverage.c.feed_at,
        coverage.c.feed_messages,
        coverage.c.found_by_feed,
        coverage.c.found_by_sweep,
        coverage.c.found_by_manual,
    )
    state = references.c.state
    counts = (
        func.count(references.c.id).label("references"),
        _counted(state == ReferenceState.ACTIVE.value, "active"),
        _counted(state == ReferenceState.PENDING_DELETION.value, "pending_deletion"),
        _counted(state == ReferenceState.UNREADABLE.value, "unreadable"),
        _counted(state.in_([one.value for one in GONE]), "gone"),
    )
    living = and_(references.c.source_id == sources.c.id, ~references.c.deleted)
    joined = sources.join(coverage, coverage.c.source_id == sources.c.id).outerjoin(references, living)
    query = select(*columns, *counts).select_from(joined).where(~sources.c.deleted)
    return query.group_by(sources.c.id, coverage.c.source_id).order_by(sources.c.name)


class PostgresViews:
    """What people read."""

    def __init__(self, sessions: Sessions, seal: Seal) -> None:
        """Read through `sessions`; `seal` recognises sources."""
        self._sessions = sessions
        self._seal = seal

    async def sources(self, *, after: str, limit: int) -> tuple[SourceRecord, ...]:
        """See `Views`."""
        async with transaction(self._sessions) as session:
            everything = await SourceStore(session, self._seal).all()
        return tuple(record for record in everything if record.name > after)[:limit]

    async def source(self, text: str) -> SourceRecord | None:
        """See `Views`."""
        async with transaction(self._sessions) as session:
            return await SourceStore(session, self._seal).find(text)

    async def references(self, wanted: Wanted, *, after: str, limit: int) -> tuple[ReferenceView, ...]:
        """See `Views`."""
        # Names are unique among the living, so the last one shown is where the next page begins.
        query = _references().where(references.c.name > after)
        if wanted.source is not None:
            query = query.where(sources.c.name == wanted.source)
        if wanted.state is not None:
            query = query.where(_STATE.is_not_distinct_from(wanted.state.value))
        if wanted.name is not None:
            query = query.where(func.strpos(func.lower(references.c.name), wanted.name.lower()) > 0)
        async with transaction(self._sessions) as session:
            rows = await session.execute(query.order_by(references.c.name).limit(limit))
            return tuple([_reference(row) for row in rows.mappings()])

    async def reference(self, reference_id: str) -> ReferenceView | None:
        """See `Views`."""
        async with transaction(self._sessions) as session:
            rows = await session.execute(_references().where(references.c.id == reference_id))
            row = rows.mappings().first()
            return None if row is None else _reference(row)

    async def coverage(self) -> tuple[CoverageView, ...]:
        """See `Views`."""
        async with transaction(self._sessions) as session:
            return tuple([CoverageView(**row) for row in (await session.execute(_coverage())).mappings()])


def _reference(row: RowMapping) -> ReferenceView:
    return ReferenceView(**{**row, "version": str(row["version"]), "state": ReferenceState(row["state"])})
