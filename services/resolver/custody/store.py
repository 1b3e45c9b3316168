"""All SQL about keys and rotations. Nothing here commits: `transactions` does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import LargeBinary, Row, Text, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.resolver.custody.facts import Generation, KeyState, ReplicaKeys, Rotation, Wrapped
from services.resolver.custody.tables import generations, local_values, replicas, rotations
from services.resolver.custody.value_store import ValueStore
from shared.custody import SealedValue, ValueContext
from shared.events.changes import Actor

_HEARD_S: Final = func.extract("epoch", func.now() - replicas.c.seen_at)
"""By the database's clock, which all replicas share."""

_PUT_WRAPS: Final = text(
    "UPDATE local_values AS kept SET wrap = given.new, kek_id = :kek_id"
    " FROM unnest(:ids, :old, :new) AS given (id, old, new)"
    " WHERE kept.id = given.id AND kept.wrap = given.old"
).bindparams(
    bindparam("ids", type_=ARRAY(Text)),
    bindparam("old", type_=ARRAY(LargeBinary)),
    bindparam("new", type_=ARRAY(LargeBinary)),
)


class CustodyStore(ValueStore):
    """Keys, rotations and rows in one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def generations(self) -> tuple[Generation, ...]:
        """All of them, oldest first."""
        found = await self.session.execute(select(generations).order_by(generations.c.n))
        return tuple(_generation(row) for row in found)

    async def current(self) -> Generation | None:
        """The key that seals what is new; None before there was any."""
        query = select(generations).where(generations.c.state == KeyState.CURRENT)
        row = (await self.session.execute(query)).one_or_none()
        return None if row is None else _generation(row)

    async def make_current(
        self, key_id: str, *, recovery: bytes | None, at: datetime, by: Actor, after: Generation | None
    ) -> int:
        """Let `key_id` follow `after`, together with its recovery blob; its number."""
        n = 1 if after is None else after.n + 1
        # Before the new one is there: the database lets no two be current, not even within a transaction.
        await self.session.execute(
            update(generations).where(generations.c.state == KeyState.CURRENT).values(state=KeyState.FORMER)
        )
        await self.session.execute(
            insert(generations).values(
                n=n,
                key_id=key_id,
                state=KeyState.CURRENT,
                recovery=recovery,
                since=at,
                made_by_idp=by.idp,
                made_by=by.subject,
            )
        )
        return n

    async def retire(self, key_id: str, *, at: datetime) -> None:
        """Nothing here needs the key any more."""
        await self.session.execute(
            update(generations).where(generations.c.key_id == key_id).values(state=KeyState.RETIRED, retired_at=at)
        )

    async def values_by_key(self) -> dict[str, int]:
        """How many values are sealed under which key."""
        query = (
            select(local_values.c.kek_id, func.count())
            .where(local_values.c.kek_id.is_not(None))
            .group_by(local_values.c.kek_id)
        )
        return {str(row[0]): int(row[1]) for row in await self.session.execute(query)}

    async def announce(self, replica_id: str, key_ids: Sequence[str]) -> None:
        """This replica is here, and has these keys."""
        said = insert(replicas).values(replica_id=replica_id, key_ids=list(key_ids), seen_at=func.now())
        await self.session.execute(
            said.on_conflict_do_update(
                index_elements=[replicas.c.replica_id],
                set_={"key_ids": said.excluded.key_ids, "seen_at": said.excluded.seen_at},
            )
        )

    async def replicas(self, *, heard_within_s: float) -> tuple[ReplicaKeys, ...]:
        """Who was heard lately."""
        query = select(replicas.c.replica_id, replicas.c.key_ids, _HEARD_S)
        found = await self.session.execute(query.where(heard_within_s >= _HEARD_S).order_by(replicas.c.replica_id))
        return tuple(ReplicaKeys(name, frozenset(keys), float(heard)) for name, keys, heard in found)

    async def rotation(self) -> Rotation | None:
        """The newest one."""
        query = select(rotations).order_by(rotations.c.n.desc()).limit(1)
        row = (await self.session.execute(query)).one_or_none()
        return None if row is None else Rotation(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it

    async def begin_rotation(self, n: int, *, total: int, at: datetime) -> None:
        """All rows are to be brought to generation `n`."""
        await self.session.execute(insert(rotations).values(n=n, total=total, done=0, damaged=0, started_at=at))

    async def advance(self, n: int, *, done: int) -> None:
        """So many rows more."""
        await self.session.execute(update(rotations).where(rotations.c.n == n).values(done=rotations.c.done + done))

    async def finish_rotation(self, n: int, *, damaged: int, at: datetime) -> None:
        """Every row that opens is under the new key."""
        await self.session.execute(update(rotations).where(rotations.c.n == n).values(finished_at=at, damaged=damaged))

    async def not_under(self, key_id: str, *, after: str, most: int) -> list[Wrapped]:
        """Rows behind the id `after` that another key wraps, by id."""
        columns = local_values.c
        query = (
            select(columns.id, columns.owner, columns.server_id, columns.field, columns.version, columns.wrap)
            # A deleted row names no key, and compared with NULL it is not chosen.
            .where(columns.kek_id != key_id, columns.id > after)
            .order_by(columns.id)
            .limit(most)
        )
        found = await self.session.execute(query)
        return [
            Wrapped(row.id, ValueContext(row.owner, row.server_id, row.field, row.version), row.wrap) for row in found
        ]

    async def some_under(self, key_id: str, *, most: int) -> list[tuple[ValueContext, SealedValue]]:
        """Some rows that the key wraps, to see whether it really opens them."""
        columns = local_values.c
        query = (
            select(columns.owner, columns.server_id, columns.field, columns.version, columns.sealed, columns.wrap)
            .where(columns.kek_id == key_id)
            .limit(most)
        )
        found = await self.session.execute(query)
        return [(_context(row), SealedValue(row.sealed, row.wrap)) for row in found]

    async def put_wraps(self, key_id: str, changed: Sequence[tuple[str, bytes, bytes]]) -> int:
        """Write (id, old wrap, new wrap) where the old one still stands; how many did."""
        ids, old, new = zip(*changed, strict=True)
        found = await self.session.execute(
            _PUT_WRAPS, {"kek_id": key_id, "ids": list(ids), "old": list(old), "new": list(new)}
        )
        return int(getattr(found, "rowcount", 0))


def _context(row: Row[*tuple[Any, ...]]) -> ValueContext:
    return ValueContext(row.owner, row.server_id, row.field, row.version)


def _generation(row: Row[Any]) -> Generation:
    return Generation(
        n=row.n,
        key_id=row.key_id,
        state=KeyState(row.state),
        recovery=row.recovery,
        since=row.since,
        made_by=Actor(idp=row.made_by_idp, subject=row.made_by),
        retired_at=row.retired_at,
    )
