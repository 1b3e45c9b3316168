"""All SQL of policy. Nothing here commits: the ledger does, once, at the end of a work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from services.policy.domain.kinds import Kind
from services.policy.tables import enrolments, entities, links, standing

Query = Select[Any]

STATEMENT_WITHIN_MS = 10_000
LOCK_WITHIN_MS = 5_000
_PARAMETERS: Final = 10_000
"""Rows in one statement: PostgreSQL allows 65535 parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One living entity as it is kept."""

    id: str
    kind: Kind
    natural_key: str
    created_seq: int
    seq: int
    event_id: str
    payload: bytes
    signature: bytes
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRow:
    """One promise as it is kept."""

    id: str
    name: str
    token_sha256: str
    seq: int
    event_id: str
    payload: bytes
    signature: bytes
    instance_id: str | None = None


class Standing(NamedTuple):
    """The digest of all living records, and the last tick."""

    digest: str
    tick_revision: int
    ticked_at: datetime | None


class Cursor(NamedTuple):
    """Where a page ended."""

    created_seq: int
    id: str


_ROW: Final = (
    entities.c.id,
    entities.c.kind,
    entities.c.natural_key,
    entities.c.created_seq,
    entities.c.seq,
    entities.c.event_id,
    entities.c.payload,
    entities.c.signature,
    entities.c.due_at,
)
_ENROLMENT: Final = (
    enrolments.c.id,
    enrolments.c.name,
    enrolments.c.token_sha256,
    enrolments.c.seq,
    enrolments.c.event_id,
    enrolments.c.payload,
    enrolments.c.signature,
    enrolments.c.instance_id,
)


@dataclass(frozen=True, slots=True)
class Store:
    """The statements of one session."""

    session: AsyncSession

    async def now(self) -> datetime:
        """The database's clock."""
        # Not now(): that is the moment the transaction began, before it waited for the lock.
        moment: datetime = (await self.session.execute(select(func.clock_timestamp()))).scalar_one()
        return moment

    async def bound_waiting(self) -> None:
        """Bound what a statement of this transaction may take, and what it may wait for a lock."""
        for_this_transaction = True
        limits = {"statement_timeout": STATEMENT_WITHIN_MS, "lock_timeout": LOCK_WITHIN_MS}
        settings = [func.set_config(name, str(limit), for_this_transaction) for name, limit in limits.items()]
        await self.session.execute(select(*settings))

    async def by_id(self, entity_id: str) -> Row | None:
        """One entity."""
        return _one(await self._rows(select(*_ROW).where(entities.c.id == entity_id)))

    async def by_natural_key(self, kind: Kind, natural_key: str) -> Row | None:
        """The entity of a kind that has this natural key; for kinds with names, the name."""
        where = (entities.c.kind == kind, entities.c.natural_key == natural_key)
        return _one(await self._rows(select(*_ROW).where(*where)))

    async def by_ids(self, ids: Iterable[str]) -> Sequence[Row]:
        """Those of `ids` that live."""
        return await self._rows(select(*_ROW).where(entities.c.id.in_(sorted(set(ids)))))

    async def linked(self, kinds: Collection[Kind], targets: Sequence[str]) -> Sequence[Row]:
        """The entities of `kinds` that have all of these links, oldest first."""
        query = _linked(select(*_ROW).where(entities.c.kind.in_(kinds)), targets)
        return await self._rows(query.order_by(entities.c.created_seq, entities.c.id))

    async def page(self, kind: Kind, *, targets: Sequence[str], after: Cursor | None, limit: int) -> Sequence[Row]:
        """Up to `limit` entities of a kind behind `after`, oldest first."""
        query = _linked(select(*_ROW).where(entities.c.kind == kind), targets)
        if after is not None:
            query = query.where(tuple_(entities.c.created_seq, entities.c.id) > tuple_(*after))
        return await self._rows(query.order_by(entities.c.created_seq, entities.c.id).limit(limit))

    async def due(self, at: datetime) -> Row | None:
        """The entity whose moment passed longest before `at`; none if another replica has it in hand."""
        # Locked rows are skipped, not waited for: whoever holds one is turning it at this moment.
        query = select(*_ROW).where(entities.c.due_at <= at).order_by(entities.c.due_at).limit(1)
        return _one(await self._rows(query.with_for_update(skip_locked=True)))

    async def is_anything_due(self) -> bool:
        """Whether there is one that `due` would find by now, without any lock."""
        query = select(entities.c.id).where(entities.c.due_at <= func.clock_timestamp()).limit(1)
        return (await self.session.execute(query)).first() is not None

    async def payloads(self, ids: Collection[str]) -> dict[str, bytes]:
        """What the living among `ids` say now."""
        found: dict[str, bytes] = {}
        for some in _chunks(sorted(ids)):
            query = select(entities.c.id, entities.c.payload).where(entities.c.id.in_(some))
            found |= {row.id: row.payload for row in await self.session.execute(query)}
        return found

    async def put(self, row: Row, targets: Collection[str]) -> None:
        """Write one entity and its links; `created_seq` counts only the first time."""
        values = _values(row)
        changed = {name: value for name, value in values.items() if name not in {"id", "kind", "created_seq"}}
        statement = upsert(entities).values(values)
        await self.session.execute(statement.on_conflict_do_update(index_elements=[entities.c.id], set_=changed))
        # Links are rewritten whole: they follow from the record, and a difference would have to be computed from what
        # somebody may have changed.
        await self.session.execute(delete(links).where(links.c.entity_id == row.id))
        if targets:
            await self.session.execute(insert(links), [{"entity_id": row.id, "target": one} for one in sorted(targets)])

    async def remove(self, ids: Collection[str]) -> None:
        """Forget entities and their links."""
        # Their links go with them, by the foreign key (ON DELETE CASCADE).
        for some in _chunks(sorted(ids)):
            await self.session.execute(delete(entities).where(entities.c.id.in_(some)))

    async def standing(self) -> Standing:
        """The running digest and the last tick."""
        query = select(standing.c.digest, standing.c.tick_revision, standing.c.ticked_at)
        row = (await self.session.execute(query)).one()
        return Standing(row.digest, row.tick_revision, row.ticked_at)

    async def set_digest(self, digest: str) -> None:
        """Note the digest after this commit."""
        await self.session.execute(update(standing).values(digest=digest))

    async def set_tick(self, *, revision: int, at: datetime) -> None:
        """Note a tick."""
        await self.session.execute(update(standing).values(tick_revision=revision, ticked_at=at))

    async def enrolment_by_token(self, token_sha256: str) -> EnrolmentRow | None:
        """The promise that a token belongs to."""
        query = select(*_ENROLMENT).where(enrolments.c.token_sha256 == token_sha256)
        return _first_enrolment(await self._enrolments(query))

    async def enrolment_named(self, text: str) -> EnrolmentRow | None:
        """The newest promise by that name, or by that id."""
        query = select(*_ENROLMENT).where(or_(enrolments.c.name == text, enrolments.c.id == text))
        return _first_enrolment(await self._enrolments(query.order_by(enrolments.c.seq.desc()).limit(1)))

    async def enrolment_page(self, *, after: Cursor | None, limit: int) -> Sequence[EnrolmentRow]:
        """Up to `limit` promises behind `after`, oldest first."""
        query = select(*_ENROLMENT).order_by(enrolments.c.seq, enrolments.c.id).limit(limit)
        if after is not None:
            query = query.where(tuple_(enrolments.c.seq, enrolments.c.id) > tuple_(*after))
        return await self._enrolments(query)

    async def add_enrolment(self, row: EnrolmentRow) -> None:
        """Keep a promise."""
        values = {name: getattr(row, name) for name in EnrolmentRow.__slots__}
        await self.session.execute(insert(enrolments).values(values))

    async def use_enrolment(self, enrolment_id: str, *, instance_id: str) -> None:
        """Note whom a promise let in."""
        statement = update(enrolments).where(enrolments.c.id == enrolment_id)
        await self.session.execute(statement.values(instance_id=instance_id))

    async def drop_enrolment(self, enrolment_id: str) -> None:
        """Forget a promise."""
        await self.session.execute(delete(enrolments).where(enrolments.c.id == enrolment_id))

    async def _rows(self, query: Query) -> Sequence[Row]:
        found = await self.session.execute(query)
        return [Row(**{**row, "kind": Kind(row["kind"])}) for row in found.mappings()]

    async def _enrolments(self, query: Query) -> Sequence[EnrolmentRow]:
        return [EnrolmentRow(**row) for row in (await self.session.execute(query)).mappings()]


def _linked(query: Query, targets: Sequence[str]) -> Query:
    for target in targets:
        having = select(links.c.entity_id).where(links.c.target == target)
        # One condition a link: an entity must have all of them, and a join would ask for one row that has.
        query = query.where(entities.c.id.in_(having))
    return query


def _values(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in Row.__slots__}


def _one(rows: Sequence[Row]) -> Row | None:
    return rows[0] if rows else None


def _first_enrolment(rows: Sequence[EnrolmentRow]) -> EnrolmentRow | None:
    return rows[0] if rows else None


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _PARAMETERS] for start in range(0, len(ids), _PARAMETERS))
