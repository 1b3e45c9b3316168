"""The ledger: each change of policy is one transaction, with its number, its signed records, its event, its digest.

A work takes the service's commit number first, and with it the lock that makes works serial. What it reads was
signed by policy: a row that somebody slipped into the database is never shown, decided on or signed again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog
from sqlalchemy import text

from services.policy.domain.enrolments import Enrolment, EnrolmentRecord
from services.policy.domain.kinds import (
    ENROLMENT,
    MODELS,
    Kind,
    full_id,
    kind_of_model,
    name_of,
    natural_key,
)
from services.policy.domain.kinds import links as links_of
from services.policy.domain.names import is_plain
from services.policy.domain.ports import Page, Receipt
from services.policy.signing import PolicyKey
from services.policy.store import Cursor, EnrolmentRow, Row, Store
from services.policy.writing import Plan, write
from shared.bus.outages import is_outage
from shared.database import Sessions
from shared.errors import BadRequest, KeyfobError, SignatureInvalid, Unavailable
from shared.events.changes import Actor, PolicyAction
from shared.events.policy import GrantRecord, PolicyRecord
from shared.outbox.commits import Commit, CommitLog

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=PolicyRecord)

_TICK_SLACK: Final = 0.9
"""A tick is made when nine tenths of its interval have passed: replicas' timers are never quite even."""


class PgReading:
    """`domain.ports.Reading` over one session."""

    def __init__(self, store: Store, key: PolicyKey, now: datetime) -> None:
        self._store = store
        self._key = key
        self._now = now

    @property
    def now(self) -> datetime:
        """By the database's clock."""
        return self._now

    async def get(self, model: type[R], entity_id: str) -> R | None:
        """See `Reading`."""
        row = await self._store.by_id(entity_id)
        return None if row is None or row.kind is not kind_of_model(model) else self._open(model, row)

    async def find(self, model: type[R], text: str) -> R | None:
        """See `Reading`."""
        kind = kind_of_model(model)
        if not is_plain(text):
            return None
        # The text alone tells which of the two it is: check_name() refuses names that look like ids.
        if (entity_id := full_id(kind, text)) is not None:
            return await self.get(model, entity_id)
        row = await self._store.by_natural_key(kind, text)
        return None if row is None else self._open(model, row)

    async def linked(self, model: type[R], *targets: str) -> tuple[R, ...]:
        """See `Reading`."""
        rows = await self._store.linked({kind_of_model(model)}, targets)
        return tuple(self._open(model, row, targets) for row in rows)

    async def page(self, model: type[R], *, links: Sequence[str], after: str | None, limit: int) -> Page[R]:
        """See `Reading`."""
        kind = kind_of_model(model)
        # One more than is shown says whether there is more, without a count.
        rows = await self._store.page(kind, targets=links, after=_cursor(after, kind), limit=limit + 1)
        shown = rows[:limit]
        more = _position(shown[-1].created_seq, shown[-1].id) if len(rows) > limit else None
        return Page(tuple(self._open(model, row, links) for row in shown), more)

    async def names(self, ids: Collection[str]) -> dict[str, str]:
        """See `Reading`."""
        rows = await self._store.by_ids(ids)
        return {row.id: name_of(self._open(MODELS[row.kind], row)) for row in rows}

    async def enrolment_by_name(self, text: str) -> Enrolment | None:
        """See `Reading`."""
        if not is_plain(text):
            return None
        row = await self._store.enrolment_named(full_id(ENROLMENT, text) or text)
        return None if row is None else self._open_enrolment(row)

    async def enrolment_by_token(self, token_sha256: str) -> Enrolment | None:
        """See `Reading`."""
        row = await self._store.enrolment_by_token(token_sha256)
        return None if row is None else self._open_enrolment(row)

    async def enrolment_page(self, *, after: str | None, limit: int) -> Page[Enrolment]:
        """See `Reading`."""
        rows = await self._store.enrolment_page(after=_cursor(after, ENROLMENT), limit=limit + 1)
        shown = rows[:limit]
        more = _position(shown[-1].seq, shown[-1].id) if len(rows) > limit else None
        return Page(tuple(map(self._open_enrolment, shown)), more)

    def _open(self, model: type[R], row: Row, targets: Sequence[str] = ()) -> R:
        """The record in a row, if policy signed exactly this, for this id, this name and these links."""
        if self._key.signed(model, key=row.id, payload=row.payload, signature=row.signature):
            record = model.model_validate_json(row.payload)
            # Columns and links are not signed: they are believed only as far as the signed bytes say the same.
            if natural_key(record) == row.natural_key and links_of(record).issuperset(targets):
                return record
        # Not left out in silence: a list without it would look like a revocation that nobody made.
        log.critical("row-not-signed", entity=row.id)
        raise SignatureInvalid

    def _open_enrolment(self, row: EnrolmentRow) -> Enrolment:
        if not self._key.promised(row.payload, signature=row.signature):
            log.critical("row-not-signed", entity=row.id)
            raise SignatureInvalid
        record = EnrolmentRecord.model_validate_json(row.payload)
        # Else a row with the digest of a token of one's own would open the promise that was made to another.
        if (record.id, record.token_sha256) != (row.id, row.token_sha256):
            log.critical("row-not-signed", entity=row.id)
            raise SignatureInvalid
        return Enrolment(record=record, instance_id=row.instance_id, seq=row.seq, event_id=row.event_id)


class PgWork(PgReading):
    """`domain.ports.Work` over one session and one commit: reads at once, writes at the end."""

    def __init__(self, store: Store, key: PolicyKey, now: datetime, *, commit: Commit, actor: Actor) -> None:
        super().__init__(store, key, now)
        self._commit = commit
        self.plan = Plan(seq=commit.seq, now=now, actor=actor)

    @property
    def seq(self) -> int:
        """The number of this commit."""
        return self.plan.seq

    async def standing(self, record: R) -> tuple[R, Receipt] | None:
        """See `Work`."""
        model = type(record)
        row = await self._store.by_natural_key(kind_of_model(model), natural_key(record))
        if row is None:
            return None
        return self._open(model, row), Receipt(entity_id=row.id, seq=row.seq, event_id=row.event_id)

    async def falling(self, entity_id: str, kinds: Collection[Kind]) -> tuple[PolicyRecord, ...]:
        """See `Work`."""
        rows = await self._store.linked(kinds, (entity_id,)) if kinds else ()
        # Under the row's own id: nothing that somebody wrote into one may name what else policy says is gone.
        return tuple(
            MODELS[row.kind].model_validate_json(row.payload).model_copy(update={"id": row.id}) for row in rows
        )

    async def due_grant(self) -> GrantRecord | None:
        """The grant whose window opens or closes now, if any."""
        # By the moment that this work decides by. A later one could find a grant due that has not begun for us yet.
        row = await self._store.due(self.now)
        return None if row is None else self._open(GrantRecord, row)

    async def is_tick_due(self, every_s: float) -> bool:
        """Whether no replica has ticked for `every_s` seconds, give or take."""
        last = (await self._store.standing()).ticked_at
        return last is None or self.now - last >= timedelta(seconds=every_s * _TICK_SLACK)

    def tick(self) -> None:
        """Let this commit hold a tick."""
        self.plan.tick = True

    def put(self, record: PolicyRecord) -> None:
        """See `Work`."""
        self.plan.puts[record.id] = record

    def delete(self, record: PolicyRecord) -> None:
        """See `Work`."""
        self.plan.deletes[record.id] = record

    def add_enrolment(self, record: EnrolmentRecord) -> None:
        """See `Work`."""
        self.plan.promises.append(record)

    def use_enrolment(self, enrolment_id: str, *, instance_id: str) -> None:
        """See `Work`."""
        self.plan.used[enrolment_id] = instance_id

    def drop_enrolment(self, enrolment_id: str) -> None:
        """See `Work`."""
        self.plan.dropped.append(enrolment_id)

    def announce(
        self, action: PolicyAction, *, kind: str, entity_id: str, name: str = "", ended: Collection[str] = ()
    ) -> Receipt:
        """See `Work`."""
        return self.plan.announce(action, kind=kind, entity_id=entity_id, name=name, ended=tuple(ended))

    async def write(self) -> None:
        """Write everything; the session still has to commit."""
        await write(self.plan, store=self._store, key=self._key, commit=self._commit)


@dataclass(frozen=True, slots=True)
class PgLedger:
    """`domain.ports.Ledger` on PostgreSQL."""

    sessions: Sessions
    commits: CommitLog
    key: PolicyKey

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PgReading]:
        """See `Ledger`."""
        with _database_errors():
            async with self.sessions() as session:
                # One snapshot for the whole view: a page and the names in it are of one moment.
                await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
                store = Store(session)
                await store.bound_waiting()
                yield PgReading(store, self.key, await store.now())

    @asynccontextmanager
    async def open(self, actor: Actor) -> AsyncIterator[PgWork]:
        """See `Ledger`."""
        with _database_errors():
            async with self.sessions() as session:
                store = Store(session)
                await store.bound_waiting()
                # The lock first, reading second: what a work decides on can't change before it is written.
                commit = await self.commits.begin(session)
                # Asked for after the lock, so that the moments of commits have the order of their numbers.
                work = PgWork(store, self.key, await store.now(), commit=commit, actor=actor)
                yield work
                # A number that is given back leaves no hole: the counter's row goes back with the rest.
                if work.plan.is_empty:
                    await session.rollback()
                else:
                    await work.write()
                    await session.commit()

    async def is_anything_due(self) -> bool:
        """Whether a grant's window opens or closes now; asks without any lock."""
        with _database_errors():
            async with self.sessions() as session:
                return await Store(session).is_anything_due()


@contextmanager
def _database_errors() -> Iterator[None]:
    """What the database can't answer now is `Unavailable`; a mistake of ours stays one."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KeyfobError) or not is_outage(error):
            raise
        log.warning("database-unavailable", error=type(error).__name__)
        raise Unavailable("The database did not answer in time.") from error


def _position(created_seq: int, entity_id: str) -> str:
    return f"{created_seq}.{entity_id.rpartition('/')[2]}"


def _cursor(after: str | None, kind: str) -> Cursor | None:
    if after is None:
        return None
    seq, _, digits = after.partition(".")
    entity_id = full_id(kind, digits)
    if entity_id is None or not (seq.isascii() and seq.isdecimal() and len(seq) < 19):  # noqa: PLR2004 - a bigint
        raise BadRequest("`after` must be the `next` of an earlier page.")
    return Cursor(int(seq), entity_id)
