"""All SQL of the audit service. Nothing here commits: `transactions` does, at the end of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, and_, any_, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.audit.domain.echoes import Echo
from services.audit.domain.entries import Entry
from services.audit.domain.leases import PRESUMED_AFTER, Ended, LeaseFact, Opened
from services.audit.domain.ports import LOG, LeaseQuery, LeaseView, RecordQuery, Transaction
from services.audit.domain.sightings import KEPT, Sighting
from services.audit.domain.streams import Head
from services.audit.tables import assertions, counter, echoes, endings, leases, mentions, records, streams
from shared import topics
from shared.database import Sessions
from shared.events.audit import AuditRecord
from shared.outbox.commits import CommitLog

_LEASE_COLUMNS: Final = list(leases.c)


def transactions(sessions: Sessions, commits: CommitLog) -> Transaction:
    """Transactions on the audit service's schema."""

    @asynccontextmanager
    async def begin() -> AsyncIterator[PgJournal]:
        async with sessions.begin() as session:
            yield PgJournal(session, commits)

    return begin


class PgJournal:
    """The port `Journal` on PostgreSQL, inside one transaction."""

    def __init__(self, session: AsyncSession, commits: CommitLog) -> None:
        self._session = session
        self._commits = commits

    async def write(self, entries: Sequence[Entry]) -> int:
        """Number and record what is new.

        The counter's row is locked before looking for causes that are on record: two replicas that were given the
        same event number it once.
        """
        if not entries:
            return 0
        # Read committed: what is looked for after the lock includes what the one who held it before wrote.
        last = (await self._session.execute(select(counter.c.n).with_for_update())).scalar_one()
        new = await self._new(entries)
        if not new:
            return 0
        numbered = [(entry, entry.numbered(LOG, n)) for n, entry in enumerate(new, last + 1)]
        # Through the outbox: topic and database hold the same bytes, or neither has the record.
        payloads = await self._publish([record for _, record in numbered])
        rows = [
            _record_row(entry, record, payload) for (entry, record), payload in zip(numbered, payloads, strict=True)
        ]
        await self._session.execute(insert(records), rows)
        mentioned = [row for _, record in numbered for row in _mention_rows(record)]
        if mentioned:
            await self._session.execute(insert(mentions), mentioned)
        await self._session.execute(update(counter).values(n=last + len(new)))
        return len(new)

    async def _new(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those whose cause is not on record, each once, in their order."""
        wanted: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            wanted.setdefault((entry.cause.topic, entry.cause.key), entry)
        for topic in {topic for topic, _ in wanted}:
            keys = [key for of, key in wanted if of == topic]
            for found in await self._known(topic, keys):
                del wanted[topic, found]
        return list(wanted.values())

    async def _known(self, topic: str, keys: Collection[str]) -> Mapping[str, str]:
        """The hashes of causes that are on record, by key. One parameter however many are asked for."""
        asked = records.c.cause_key == any_(bindparam("keys", list(keys), type_=ARRAY(Text)))
        query = select(records.c.cause_key, records.c.cause_hash).where(records.c.cause_topic == topic, asked)
        return {row.cause_key: row.cause_hash for row in await self._session.execute(query)}

    async def hashes(self, keys: Collection[str]) -> Mapping[str, str]:
        """Of those access records that are on record, by key: the hash of the payload."""
        return await self._known(topics.ACCESS, keys) if keys else {}

    async def opened(self, lease_ids: Collection[str]) -> Mapping[str, Opened]:
        """Of those leases that are on record, by id."""
        if not lease_ids:
            return {}
        asked = leases.c.lease_id == any_(bindparam("ids", list(lease_ids), type_=ARRAY(Text)))
        found = (await self._session.execute(select(*_LEASE_COLUMNS).where(asked))).mappings()
        return {row["lease_id"]: Opened(**row) for row in found}

    async def await_records(self, awaited: Sequence[Echo], *, since: datetime) -> None:
        """Remember that instances were told of records that are not here, or not yet."""
        # Two replicas that insert the same rows in different orders would wait for each other (deadlock).
        in_one_order = sorted(awaited, key=lambda one: (one.key, one.hash, one.instance_id))
        rows = [_row(one) | {"since": since} for one in in_one_order]
        if rows:
            await self._session.execute(insert(echoes).on_conflict_do_nothing(), rows)

    async def awaited(self, *, before: datetime, limit: int) -> list[Echo]:
        """The echoes that were remembered before then, the oldest first. Another replica's hands are off them."""
        query = (
            select(echoes.c.stream, echoes.c.n, echoes.c.hash, echoes.c.instance_id, echoes.c.at)
            .where(echoes.c.since < before)
            .order_by(echoes.c.since)
            .limit(limit)
            # Replicas share the work instead of waiting for each other over the same rows.
            .with_for_update(skip_locked=True)
        )
        return [Echo(**row) for row in (await self._session.execute(query)).mappings()]

    async def forget_echoes(self, settled: Sequence[Echo]) -> None:
        """They were settled, one way or the other."""
        names = ("stream", "n", "hash", "instance_id")
        one = and_(*(echoes.c[name] == bindparam(f"the_{name}") for name in names))
        rows = [{f"the_{name}": getattr(echo, name) for name in names} for echo in settled]
        await self._session.execute(delete(echoes).where(one), rows)

    async def sight(self, sightings: Sequence[Sighting], *, at: datetime) -> Mapping[str, str]:
        """Remember which assertions requests came with; the first request of each, by digest."""
        if not sightings:
            return {}
        first: dict[str, str] = {}
        for one in sightings:
            first.setdefault(one.assertion, one.resolution_id)
        await self._session.execute(delete(assertions).where(assertions.c.since < at - KEPT))
        rows = [
            {"assertion": digest, "resolution_id": resolution_id, "since": at}
            # Locks in one order, for the same reason as in `await_records`.
            for digest, resolution_id in sorted(first.items())
        ]
        await self._session.execute(insert(assertions).on_conflict_do_nothing(), rows)
        asked = assertions.c.assertion == any_(bindparam("digests", list(first), type_=ARRAY(Text)))
        query = select(assertions.c.assertion, assertions.c.resolution_id).where(asked)
        return {row.assertion: row.resolution_id for row in await self._session.execute(query)}

    async def _publish(self, numbered: Sequence[AuditRecord]) -> list[bytes]:
        """Leave them to the relay; their payloads as they will be in the topic."""
        commit = await self._commits.begin(self._session)
        payloads = [commit.event(record, key=LOG, event_id=f"{LOG}/{record.n}") for record in numbered]
        await commit.flush()
        return payloads

    async def heads(self, streams_wanted: Collection[str]) -> Mapping[str, Head]:
        """The newest record seen of each of these streams, locked until the transaction ends."""
        # Locks in one order, for the same reason as in `await_records`.
        query = select(streams.c.stream, streams.c.n, streams.c.hash).where(streams.c.stream.in_(streams_wanted))
        rows = await self._session.execute(query.order_by(streams.c.stream).with_for_update())
        return {row.stream: Head(row.n, row.hash) for row in rows}

    async def keep_heads(self, heads: Mapping[str, Head]) -> None:
        """Remember how far streams were seen."""
        if not heads:
            return
        statement = insert(streams)
        newer = {"n": statement.excluded.n, "hash": statement.excluded.hash}
        statement = statement.on_conflict_do_update(
            # Never back: a record that came late must not make those behind it look repeated.
            index_elements=[streams.c.stream],
            set_=newer,
            where=streams.c.n < statement.excluded.n,
        )
        rows = [{"stream": stream, "n": head.n, "hash": head.hash} for stream, head in sorted(heads.items())]
        await self._session.execute(statement, rows)

    async def apply(self, facts: Iterable[LeaseFact]) -> None:
        """Open and end leases. A release is never taken back by an authorisation that is delivered again."""
        opened: dict[str, Opened] = {}
        # By who said so as well: a word about somebody else's lease must not stand in the way of the holder's own.
        ended: dict[tuple[str, str], Ended] = {}
        for fact in facts:
            match fact:
                case Opened() if fact.released or fact.lease_id not in opened:
                    opened[fact.lease_id] = fact
                case Ended():
                    ended[fact.lease_id, fact.instance_id or ""] = fact
                case _:
                    pass
        await self._open([opened[lease_id] for lease_id in sorted(opened)])
        await self._end([ended[key] for key in sorted(ended)])

    async def _open(self, opened: Sequence[Opened]) -> None:
        if not opened:
            return
        statement = insert(leases)
        confirmed = {"version": statement.excluded.version, "released": statement.excluded.released}
        statement = statement.on_conflict_do_update(
            # Only a release changes a lease that is there; an authorisation that is read again knows less.
            index_elements=[leases.c.lease_id],
            set_=confirmed,
            where=statement.excluded.released,
        )
        await self._session.execute(statement, [_row(one) for one in opened])

    async def _end(self, ended: Sequence[Ended]) -> None:
        if not ended:
            return
        rows = [
            {"lease_id": one.lease_id, "instance_id": one.instance_id or "", "at": one.at, "why": one.why}
            for one in ended
        ]
        # The first word stands: a receipt that is repeated later must not move the end.
        await self._session.execute(insert(endings).on_conflict_do_nothing(), rows)

    async def records(self, query: RecordQuery) -> list[AuditRecord]:
        """The records that were asked for, oldest first."""
        statement = select(records.c.payload).where(*_record_conditions(query)).order_by(records.c.n).limit(query.limit)
        rows = await self._session.execute(statement)
        return [AuditRecord.model_validate_json(row.payload) for row in rows]

    async def leases(self, query: LeaseQuery) -> list[LeaseView]:
        """The leases that were asked for, by id. Only the instance that a lease is for, or the resolver, ends it."""
        ours = or_(endings.c.instance_id == leases.c.instance_id, endings.c.instance_id == "")
        # Beside the lease and not in it: an end may be read before the lease that it ends.
        end = (
            select(func.min(endings.c.at).label("at"), func.min(endings.c.why).label("why"))
            .where(endings.c.lease_id == leases.c.lease_id, ours)
            .lateral("ended")
        )
        statement = (
            select(*_LEASE_COLUMNS, end.c.at, end.c.why)
            .where(leases.c.lease_id > query.after, *_lease_conditions(query, end.c.at))
            .order_by(leases.c.lease_id)
            .limit(query.limit)
        )
        rows = (await self._session.execute(statement)).mappings()
        return [_lease_view(dict(row)) for row in rows]


def _row(one: Opened | Echo) -> dict[str, Any]:
    """The fields as columns; `dataclasses.asdict` would copy each value, deeply."""
    return {field.name: _column(getattr(one, field.name)) for field in fields(one)}


def _column(value: Any) -> Any:
    """PostgreSQL's text has no NUL: a name that holds one must not lose its record. The payload keeps it as it is."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _record_row(entry: Entry, record: AuditRecord, payload: bytes) -> dict[str, Any]:
    return {
        "n": record.n,
        "cause_topic": entry.cause.topic,
        "cause_key": entry.cause.key,
        "at": entry.at,
        "action": entry.action,
        "actor": _column(entry.actor),
        "instance_id": entry.instance_id,
        "instance_name": _column(entry.instance_name),
        "payload": payload,
        "cause_hash": entry.cause.hash,
    }


def _mention_rows(record: AuditRecord) -> Iterable[dict[str, Any]]:
    for position, reference in enumerate(record.references):
        yield {
            "n": record.n,
            "position": position,
            "reference_id": reference.id,
            "reference_name": _column(reference.name),
        }


def _record_conditions(query: RecordQuery) -> Iterable[ColumnElement[bool]]:
    yield records.c.n > query.after
    if query.reference is not None:
        named = or_(mentions.c.reference_id == query.reference, mentions.c.reference_name == query.reference)
        yield exists().where(mentions.c.n == records.c.n, named)
    if query.subject is not None:
        yield records.c.actor == query.subject
    if query.instance is not None:
        yield or_(records.c.instance_id == query.instance, records.c.instance_name == query.instance)
    if query.action is not None:
        yield records.c.action == query.action
    if query.since is not None:
        yield records.c.at >= query.since
    if query.until is not None:
        yield records.c.at < query.until


def _lease_conditions(query: LeaseQuery, ended_at: ColumnElement[Any]) -> Iterable[ColumnElement[bool]]:
    if query.reference is not None:
        yield or_(leases.c.reference_id == query.reference, leases.c.reference_name == query.reference)
    if query.instance is not None:
        yield or_(leases.c.instance_id == query.instance, leases.c.instance_name == query.instance)
    if query.since is not None:
        # least() passes over null: a lease without an end counts until it expires.
        yield func.least(leases.c.expires_at, ended_at) > query.since
    if query.until is not None:
        yield leases.c.opened_at < query.until
    if query.given_by is not None:
        yield or_(leases.c.released, leases.c.opened_at < query.given_by - PRESUMED_AFTER)
    if query.open_at is not None:
        yield and_(leases.c.opened_at <= query.open_at, leases.c.expires_at > query.open_at)
        yield or_(ended_at.is_(None), ended_at > query.open_at)


def _lease_view(row: dict[str, Any]) -> LeaseView:
    ended_at, why = row.pop("at"), row.pop("why")
    return LeaseView(opened=Opened(**row), ended_at=ended_at, why=why or "")
