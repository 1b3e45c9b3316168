"""Statements about sources and about how well each is covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import RowMapping, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from services.sync.domain.ports import Sight
from services.sync.store.signatures import Seal, Signed
from services.sync.store.tables import coverage, sources
from shared.errors import SignatureInvalid
from shared.events.catalog import SourceRecord
from shared.events.changes import Detection

_log = structlog.get_logger()

_SIGNED: Final = (sources.c.id, sources.c.payload, sources.c.signature)
_FOUND_BY: Final = {
    Detection.FEED: coverage.c.found_by_feed,
    Detection.SWEEP: coverage.c.found_by_sweep,
    Detection.MANUAL: coverage.c.found_by_manual,
}


@dataclass(frozen=True, slots=True)
class SourceStore:
    """The statements of one session."""

    session: AsyncSession
    seal: Seal

    async def all(self) -> tuple[SourceRecord, ...]:
        """All living sources by name. One that does not verify is none, and keeps no other from working."""
        query = select(*_SIGNED).where(~sources.c.deleted).order_by(sources.c.name)
        found = []
        for row in (await self.session.execute(query)).mappings():
            try:
                found.append(self._opened(row))
            except SignatureInvalid:
                _log.critical("source-not-ours", source=row["id"])
        return tuple(found)

    async def find(self, text: str) -> SourceRecord | None:
        """One living source by id or name, verified."""
        where = ((sources.c.id == text) | (sources.c.name == text), ~sources.c.deleted)
        row = (await self.session.execute(select(*_SIGNED).where(*where))).mappings().first()
        return None if row is None else self._opened(row)

    async def lock(self, source_id: str) -> SourceRecord | None:
        """One living source, verified; nobody else works on it until this transaction ends."""
        where = (sources.c.id == source_id, ~sources.c.deleted)
        row = (await self.session.execute(select(*_SIGNED).where(*where).with_for_update())).mappings().first()
        return None if row is None else self._opened(row)

    async def put(self, record: SourceRecord, signed: Signed) -> None:
        """Write one source as it is from this commit on."""
        values: dict[str, Any] = {
            "id": record.id,
            "name": record.name,
            "provider": record.place.provider,
            "origin": record.place.origin,
            "mount": record.place.mount,
            "prefix": record.place.prefix,
            "reachable": record.reachable,
            "deleted": record.deleted,
            "seq": record.seq,
            "payload": signed.payload,
            "signature": signed.signature,
        }
        statement = upsert(sources).values(values)
        await self.session.execute(statement.on_conflict_do_update(index_elements=[sources.c.id], set_=values))
        covered = upsert(coverage).values(source_id=record.id)
        await self.session.execute(covered.on_conflict_do_nothing(index_elements=[coverage.c.source_id]))

    async def since_survey_s(self, source_id: str) -> float | None:
        """Seconds since the last survey that reached the source ended."""
        age = func.extract("epoch", func.clock_timestamp() - coverage.c.surveyed_at)
        seconds = (await self.session.execute(select(age).where(coverage.c.source_id == source_id))).scalar()
        return None if seconds is None else float(seconds)

    async def note_sight(self, source_id: str, sight: Sight) -> None:
        """Keep how a survey went."""
        found_by = _FOUND_BY[sight.detected_by]
        values: dict[Any, Any] = {coverage.c.why: sight.why, found_by: found_by + sight.changed}
        # A survey that did not come through says nothing of the source but why.
        if sight.reachable:
            values |= {
                coverage.c.surveyed_at: func.clock_timestamp(),
                coverage.c.survey_s: sight.took_s,
                coverage.c.seen: sight.seen,
                coverage.c.denied_folders: sight.denied_folders,
                coverage.c.older: sight.older,
            }
        if sight.keys_visible is not None:
            values[coverage.c.keys_visible] = sight.keys_visible
        await self.session.execute(update(coverage).where(coverage.c.source_id == source_id).values(values))

    async def note_feed(self, source_id: str, *, messages: int, changed: int) -> None:
        """Count what the change feed said, and what came of it."""
        values = {
            coverage.c.feed_at: func.clock_timestamp(),
            coverage.c.feed_messages: coverage.c.feed_messages + messages,
            coverage.c.found_by_feed: coverage.c.found_by_feed + changed,
        }
        await self.session.execute(update(coverage).where(coverage.c.source_id == source_id).values(values))

    def _opened(self, row: RowMapping) -> SourceRecord:
        return self.seal.open(SourceRecord, row["id"], row["payload"], row["signature"])
