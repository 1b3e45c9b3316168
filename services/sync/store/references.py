"""Statements about references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, Select, Text, bindparam, case, exists, func, select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from services.sync.domain.detection import GONE, Known
from services.sync.domain.ports import Vanished
from services.sync.domain.successors import MOST, Appeared
from services.sync.store.signatures import Seal, Signed
from services.sync.store.tables import references
from shared.events.catalog import ReferenceRecord, ReferenceState

_SIGNED: Final = (
    references.c.id,
    references.c.payload,
    references.c.signature,
    references.c.born_at,
    references.c.set_by_admin,
)
_PLAIN: Final = (
    references.c.id,
    references.c.seq,
    references.c.name,
    references.c.source_id,
    references.c.path,
    references.c.key,
    references.c.version,
    references.c.state,
    references.c.successor_id,
    references.c.owner,
    references.c.description,
    references.c.changed_at,
    references.c.born_at,
    references.c.set_by_admin,
)


_CHANGING: Final = (
    "name",
    "version",
    "born_at",
    "state",
    "successor_id",
    "owner",
    "description",
    "set_by_admin",
    "changed_at",
    "deleted",
    "seq",
    "payload",
    "signature",
)


def _at_path() -> Select[Any]:
    """The index has digests of paths; the path itself is compared too."""
    table = references.c
    path = bindparam("at", type_=Text)
    same = (func.md5(table.path) == func.md5(path), table.path == path)
    where = (table.source_id == bindparam("source"), ~table.deleted, *same)
    # In the order of ids, as everywhere, so that two transactions never wait for each other in a circle.
    return select(*_SIGNED).where(*where).order_by(table.id).with_for_update()


def _put() -> Insert:
    new = upsert(references)
    table, given = references.c, new.excluded
    kept: dict[str, Any] = {name: given[name] for name in _CHANGING}
    # Since when it is gone stays as it was for one that only learns its successor.
    kept["gone_at"] = case((given.gone_at.is_(None), None), else_=func.coalesce(table.gone_at, given.gone_at))
    return new.on_conflict_do_update(index_elements=[table.id], set_=kept)


_AT_PATH: Final = _at_path()
_PUT: Final = _put()
"""Made once: they are what every look waits for."""


@dataclass(frozen=True, slots=True)
class ReferenceStore:
    """The statements of one session."""

    session: AsyncSession
    seal: Seal

    async def at_path(self, source_id: str, path: str) -> tuple[Known, ...]:
        """The references at one path, verified and locked."""
        rows = (await self.session.execute(_AT_PATH, {"source": source_id, "at": path})).mappings()
        return tuple([self._opened(row) for row in rows])

    async def by_id(self, reference_id: str) -> Known | None:
        """One living reference, verified and locked."""
        where = (references.c.id == reference_id, ~references.c.deleted)
        row = (await self.session.execute(select(*_SIGNED).where(*where).with_for_update())).mappings().first()
        return None if row is None else self._opened(row)

    async def of_source(self, source_id: str) -> tuple[Known, ...]:
        """All living references of a source, verified and locked."""
        where = (references.c.source_id == source_id, ~references.c.deleted)
        query = select(*_SIGNED).where(*where).order_by(references.c.id).with_for_update()
        return tuple([self._opened(row) for row in (await self.session.execute(query)).mappings()])

    async def snapshot(self, source_id: str) -> dict[str, tuple[Known, ...]]:
        """All living references of a source by path: good for comparing, not verified, never signed again."""
        where = (references.c.source_id == source_id, ~references.c.deleted)
        found: dict[str, tuple[Known, ...]] = {}
        for row in (await self.session.execute(select(*_PLAIN).where(*where))).mappings():
            found[row["path"]] = (*found.get(row["path"], ()), _plain(row))
        return found

    async def is_taken(self, name: str) -> bool:
        """Whether a living reference has that name."""
        # Gone ones count: until they are forgotten, their name would mean two things to whoever reads the record.
        query = select(references.c.id).where(references.c.name == name, ~references.c.deleted)
        return (await self.session.execute(query)).first() is not None

    async def appeared(self, source_id: str, *, since: datetime) -> tuple[Appeared, ...]:
        """Active references of a source that were discovered since then and succeed no other yet."""
        other = references.alias()
        where = (
            ~exists().where(other.c.successor_id == references.c.id, ~other.c.deleted),
            references.c.source_id == source_id,
            references.c.discovered_at >= since,
            references.c.state == ReferenceState.ACTIVE.value,
            ~references.c.deleted,
        )
        # One more than are compared: so that too many show as such.
        query = select(*_PLAIN, references.c.discovered_at).where(*where).limit(MOST + 1)
        rows = (await self.session.execute(query)).mappings()
        return tuple([Appeared(_plain(row).record, row["discovered_at"]) for row in rows])

    async def vanished(self, source_id: str, *, since: datetime) -> tuple[Vanished, ...]:
        """References of a source that were removed since then, verified; those that others hold are left out."""
        where = (
            references.c.source_id == source_id,
            references.c.gone_at >= since,
            references.c.state == ReferenceState.REMOVED.value,
            ~references.c.deleted,
        )
        some = select(*_SIGNED, references.c.gone_at).where(*where).limit(MOST + 1)
        query = some.with_for_update(skip_locked=True)
        return tuple(
            [Vanished(self._opened(row), row["gone_at"]) for row in (await self.session.execute(query)).mappings()]
        )

    async def put(self, entries: Sequence[tuple[Known, Signed]], *, at: datetime) -> None:
        """Write references as they are from the commit of `at` on."""
        # One statement for all: a secret of many names is one trip while everybody waits for the commit.
        await self.session.execute(_PUT, [_row(known, signed, at) for known, signed in entries])

    def _opened(self, row: RowMapping) -> Known:
        record = self.seal.open(ReferenceRecord, row["id"], row["payload"], row["signature"])
        return Known(record=record, born_at=row["born_at"], set_by_admin=frozenset(row["set_by_admin"]))


def _row(known: Known, signed: Signed, at: datetime) -> dict[str, Any]:
    record = known.record
    return {
        "id": record.id,
        "source_id": record.source_id,
        "path": record.path,
        "key": record.key,
        "name": record.name,
        "version": int(record.version),
        "born_at": known.born_at,
        "state": record.state.value,
        "successor_id": record.successor_id,
        "owner": record.owner,
        "description": record.description,
        "set_by_admin": sorted(known.set_by_admin),
        "changed_at": record.changed_at,
        "discovered_at": at,
        "gone_at": at if record.state in GONE else None,
        "deleted": record.deleted,
        "seq": record.seq,
        "payload": signed.payload,
        "signature": signed.signature,
    }


def _plain(row: RowMapping) -> Known:
    """From the columns, as they are; validating thousands of rows that nobody signs would cost seconds."""
    record = ReferenceRecord.model_construct(
        id=row["id"],
        seq=row["seq"],
        revision=1,
        name=row["name"],
        source_id=row["source_id"],
        path=row["path"],
        key=row["key"],
        version=str(row["version"]),
        state=ReferenceState(row["state"]),
        successor_id=row["successor_id"],
        owner=row["owner"],
        description=row["description"],
        changed_at=row["changed_at"],
    )
    return Known(record=record, born_at=row["born_at"], set_by_admin=frozenset(row["set_by_admin"]))
