"""All SQL of the notifier. Nothing here commits: `transactions` does, at the end of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import delete, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.notifier.domain.convergence import Dropped, GatewayProgress, Member, MemberKind, Published, Settled
from services.notifier.domain.expectations import Departure
from services.notifier.domain.ports import Noted, NotedAlert, Transaction
from services.notifier.domain.receipts import ResolverRun
from services.notifier.tables import alerts, departures, members, notices
from shared.database import Sessions
from shared.events.alerts import Alert
from shared.events.notices import Notice

# Two that settle at once would lock the same rows in different orders, and each see the other's members as awaited.
_TAKE_TURNS: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('keyfob-notifier-settle', 0))")

# One statement for all members at once, with one parameter: its cost does not grow with open notices times instances.
_SETTLE_GATEWAYS: Final = text("""
    UPDATE members SET dropped_at = said.heard_at
    FROM jsonb_to_recordset(CAST(:progress AS jsonb)) AS said(id text, dropped bigint, heard_at timestamptz)
    WHERE members.dropped_at IS NULL AND members.kind = 'gateway'
      AND members.member_id = said.id AND members.topic_offset <= said.dropped
    RETURNING members.notice_id
""")

# A notice names a commit of policy or one of the catalog; the other column is null and compares to nothing.
_SETTLE_RESOLVERS: Final = text("""
    UPDATE members SET dropped_at = said.heard_at
    FROM jsonb_to_recordset(CAST(:progress AS jsonb))
      AS said(id text, run text, policy bigint, catalog bigint, stopping boolean, heard_at timestamptz)
    WHERE members.dropped_at IS NULL AND members.kind = 'resolver'
      AND members.member_id = said.id AND members.run = said.run
      AND (said.stopping OR members.policy_seq <= said.policy OR members.catalog_seq <= said.catalog)
    RETURNING members.notice_id
""")


def transactions(sessions: Sessions) -> Transaction:
    """Transactions on the notifier's schema."""

    @asynccontextmanager
    async def begin() -> AsyncIterator[NoticeStore]:
        async with sessions.begin() as session:
            yield NoticeStore(session)

    return begin


class NoticeStore:
    """The port `Notes` on PostgreSQL, inside one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def note(self, published: Sequence[Published]) -> None:
        """Keep notices with their members; one that is known changes nothing."""
        if not published:
            return
        # A batch may hold the same notice twice; it counts where it stood first.
        first = {one.notice.id: one for one in reversed(published)}
        statement = insert(notices).on_conflict_do_nothing(index_elements=[notices.c.id]).returning(notices.c.id)
        new = set((await self._session.execute(statement, [_notice_row(one) for one in first.values()])).scalars())
        # Members only for what was really inserted: those of a known notice were frozen then, and stay.
        rows = [row for notice_id in new for row in _member_rows(first[notice_id])]
        if rows:
            await self._session.execute(insert(members), rows)

    async def departures(self, instance_ids: Collection[str]) -> dict[str, Departure]:
        """The newest notice that told of the end of each of these instances."""
        if not instance_ids:
            return {}
        found = await self._session.execute(
            select(departures.c.instance_id, departures.c.policy_seq, departures.c.topic_offset, departures.c.at).where(
                departures.c.instance_id.in_(instance_ids)
            )
        )
        return {
            row.instance_id: Departure(
                instance_id=row.instance_id, policy_seq=row.policy_seq, offset=row.topic_offset, at=row.at
            )
            for row in found
        }

    async def depart(self, departed: Sequence[Departure]) -> None:
        """Keep departures; an older one than is known changes nothing."""
        for one in departed:
            statement = insert(departures).values(
                instance_id=one.instance_id, policy_seq=one.policy_seq, topic_offset=one.offset, at=one.at
            )
            await self._session.execute(
                statement.on_conflict_do_update(
                    index_elements=[departures.c.instance_id],
                    set_={name: statement.excluded[name] for name in ("policy_seq", "topic_offset", "at")},
                    # A ban, a return and a second ban: only the newest end counts, in whichever order notices are
                    # noted.
                    where=departures.c.policy_seq < statement.excluded.policy_seq,
                )
            )

    async def find(self, notice_or_cause: str) -> Noted | None:
        """A notice by its own id or by that of the event that caused it."""
        found = await self._session.execute(
            _NOTICES.where(or_(notices.c.id == notice_or_cause, notices.c.cause_id == notice_or_cause)).limit(1)
        )
        noted = await self._with_members(found.all())
        return noted[0] if noted else None

    async def newest(self, *, limit: int, before_offset: int | None = None) -> list[Noted]:
        """Notices, newest first."""
        query = _NOTICES.order_by(notices.c.topic_offset.desc()).limit(limit)
        if before_offset is not None:
            query = query.where(notices.c.topic_offset < before_offset)
        return await self._with_members((await self._session.execute(query)).all())

    async def settle(self, gateways: Sequence[GatewayProgress], resolvers: Sequence[ResolverRun]) -> int:
        """Write what members proved; the number of notices that have converged by it."""
        if not (gateways or resolvers):
            return 0
        await self._session.execute(_TAKE_TURNS)
        touched = set[str]()
        for statement, progress in (
            (_SETTLE_GATEWAYS, [_gateway_json(one) for one in gateways]),
            (_SETTLE_RESOLVERS, [_resolver_json(one) for one in resolvers]),
        ):
            if progress:
                settled = await self._session.execute(statement, {"progress": orjson.dumps(progress).decode()})
                touched.update(settled.scalars())
        return await self._close(touched) if touched else 0

    async def _close(self, notice_ids: Collection[str]) -> int:
        """Note when the last member of each notice proved it; one where somebody is awaited stays open."""
        of_notice = members.c.notice_id == notices.c.id
        last = select(func.max(members.c.dropped_at)).where(of_notice).scalar_subquery()
        awaited = exists().where(of_notice, members.c.dropped_at.is_(None))
        closing = (
            update(notices)
            .values(converged_at=last)
            # Whoever settled the others before us has committed: we waited for our turn.
            .where(notices.c.id.in_(notice_ids), notices.c.converged_at.is_(None), ~awaited)
            .returning(notices.c.id)
        )
        return len((await self._session.execute(closing)).all())

    async def keep_alerts(self, raised: Sequence[Alert]) -> None:
        """Add to the feed; one that is known changes nothing."""
        if raised:
            rows = [{"id": one.id, "kind": one.kind, "at": one.at, "payload": one.to_json()} for one in raised]
            await self._session.execute(insert(alerts).on_conflict_do_nothing(), rows)

    async def alerts(self, *, limit: int, before_n: int | None = None) -> list[NotedAlert]:
        """The feed, newest first."""
        query = select(alerts.c.n, alerts.c.payload).order_by(alerts.c.n.desc()).limit(limit)
        if before_n is not None:
            query = query.where(alerts.c.n < before_n)
        found = await self._session.execute(query)
        return [NotedAlert(row.n, Alert.model_validate_json(row.payload)) for row in found]

    async def forget(self, *, before: datetime) -> None:
        """Remove notices and alerts from before."""
        await self._session.execute(delete(notices).where(notices.c.published_at < before))
        await self._session.execute(delete(alerts).where(alerts.c.at < before))

    async def _with_members(self, rows: Sequence[Any]) -> list[Noted]:
        of = dict[str, list[tuple[Member, datetime | None]]]()
        found = await self._session.execute(
            select(members.c.notice_id, members.c.kind, members.c.member_id, members.c.run, members.c.name)
            .add_columns(members.c.dropped_at)
            .where(members.c.notice_id.in_([row.id for row in rows]))
            .order_by(members.c.notice_id, members.c.kind, members.c.name, members.c.member_id, members.c.run)
        )
        for row in found:
            member = Member(kind=MemberKind(row.kind), id=row.member_id, run=row.run, name=row.name)
            of.setdefault(row.notice_id, []).append((member, row.dropped_at))
        return [_noted(row, of.get(row.id, [])) for row in rows]


_NOTICES: Final = select(
    notices.c.id,
    notices.c.topic_offset,
    notices.c.payload,
    notices.c.published_at,
    notices.c.bounds_from,
    notices.c.converged_at,
)


def _noted(row: Any, of: list[tuple[Member, datetime | None]]) -> Noted:
    published = Published(
        notice=Notice.model_validate_json(row.payload),
        offset=row.topic_offset,
        at=row.published_at,
        bounds_from=row.bounds_from,
        members=tuple(member for member, _ in of),
    )
    settled: Settled = {member: Dropped(at) for member, at in of if at is not None}
    return Noted(published, settled, row.converged_at)


def _notice_row(one: Published) -> dict[str, object]:
    return {
        "id": one.notice.id,
        "cause_id": one.notice.cause_id,
        "topic_offset": one.offset,
        "payload": one.notice.to_json(),
        "published_at": one.at,
        "bounds_from": one.bounds_from,
        # Nobody to wait for: no receipt will ever close it.
        "converged_at": None if one.members else one.at,
    }


def _member_rows(one: Published) -> list[dict[str, object]]:
    return [
        {
            "notice_id": one.notice.id,
            "kind": member.kind.value,
            "member_id": member.id,
            "run": member.run,
            "name": member.name,
            "topic_offset": one.offset,
            # Of a local value any word of a resolver will do: see `convergence`.
            "policy_seq": 0 if one.notice.custody_seq is not None else one.notice.policy_seq,
            "catalog_seq": one.notice.catalog_seq,
            "dropped_at": None,
        }
        for member in one.members
    ]


def _gateway_json(one: GatewayProgress) -> dict[str, object]:
    return {"id": one.instance_id, "dropped": one.dropped_offset, "heard_at": one.heard_at}


def _resolver_json(one: ResolverRun) -> dict[str, object]:
    return {
        "id": one.replica_id,
        "run": one.run,
        "policy": one.policy_seq,
        "catalog": one.catalog_seq,
        "stopping": one.stopping,
        "heard_at": one.heard_at,
    }
