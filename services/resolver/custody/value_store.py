"""All SQL about single local values; `store` has that about keys. Nothing here commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import BigInteger, DateTime, Row, Text, bindparam, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.resolver.custody.tables import local_values
from services.resolver.domain.local_values import Slot
from shared.custody import SealedValue
from shared.events.changes import Actor

Use: TypeAlias = tuple[str, int]
"""(id of a value, the version of it that was released)"""

_NOTE_USE: Final = text(
    # Replicas write late, in any order. PostgreSQL's GREATEST passes over the NULL of one that was never used.
    "UPDATE local_values AS kept SET last_used_at = GREATEST(kept.last_used_at, :at)"
    # A value that was replaced meanwhile: its use says nothing of the one that is there now.
    " FROM unnest(:ids, :versions) AS given (id, version)"
    " WHERE kept.id = given.id AND kept.version = given.version"
).bindparams(
    bindparam("ids", type_=ARRAY(Text)),
    bindparam("versions", type_=ARRAY(BigInteger)),
    bindparam("at", type_=DateTime(timezone=True)),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """One value's row. Without `sealed` it was deleted: its version stays, so that none comes twice."""

    id: str
    owner: str
    server_id: str
    field: str
    version: int
    sealed: SealedValue | None
    key_id: str | None
    set_at: datetime
    last_used_at: datetime | None


class ValueStore:
    """Local values in one transaction."""

    session: AsyncSession

    async def kept(self, value_id: str) -> Kept | None:
        """The row of one value."""
        query = select(local_values).where(local_values.c.id == value_id)
        row = (await self.session.execute(query)).one_or_none()
        return None if row is None else _kept(row)

    async def keep(
        self, slot: Slot, sealed: SealedValue, *, version: int, key_id: str, by: Actor, at: datetime
    ) -> None:
        """Write a version of a value in the place of the one before. For a numbered commit only, which is serial."""
        content: dict[str, object] = {
            "version": version,
            "sealed": sealed.sealed,
            "wrap": sealed.wrap,
            "kek_id": key_id,
            "set_at": at,
            "set_by_idp": by.idp,
            "set_by": by.subject,
            # Of the value that is there now, not of the one before.
            "last_used_at": None,
            "deleted_at": None,
        }
        row = insert(local_values).values(
            id=slot.id,
            owner_kind=slot.owner.kind,
            owner=slot.owner.text,
            server_id=slot.server_id,
            field=slot.field,
            **content,
        )
        await self.session.execute(row.on_conflict_do_update(index_elements=[local_values.c.id], set_=content))

    async def forget(self, value_id: str, *, version: int, at: datetime) -> None:
        """Remove seal and wrap; what stays says only that there was a value."""
        await self.session.execute(
            update(local_values)
            .where(local_values.c.id == value_id)
            .values(version=version, sealed=None, wrap=None, kek_id=None, deleted_at=at)
        )

    async def listed(self, owners: Sequence[str]) -> list[Kept]:
        """What these owners have, by server and field."""
        columns = local_values.c
        query = (
            select(local_values)
            .where(columns.owner.in_(owners), columns.deleted_at.is_(None))
            .order_by(columns.owner, columns.server_id, columns.field)
        )
        return [_kept(row) for row in await self.session.execute(query)]

    async def note_use(self, uses: Sequence[Use], *, at: datetime) -> None:
        """These were released at `at`."""
        ids, versions = zip(*uses, strict=True)
        await self.session.execute(_NOTE_USE, {"ids": list(ids), "versions": list(versions), "at": at})


def _kept(row: Row[Any]) -> Kept:
    return Kept(
        id=row.id,
        owner=row.owner,
        server_id=row.server_id,
        field=row.field,
        version=row.version,
        sealed=None if row.sealed is None else SealedValue(row.sealed, row.wrap),
        key_id=row.kek_id,
        set_at=row.set_at,
        last_used_at=row.last_used_at,
    )
