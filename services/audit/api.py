"""HTTP: records, leases and who did, for whoever has a role. Nothing here changes anything."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from fastapi import Path as PathParameter
from pydantic import AwareDatetime, BaseModel
from starlette.responses import StreamingResponse

from services.audit.domain.leases import ABANDONED, Opened
from services.audit.domain.ports import Clock, LeaseQuery, LeaseView, RecordQuery, Transaction
from shared.administration import AdminGuard, Role
from shared.events.audit import AuditAction, AuditRecord

# One page of an export too: what one transaction reads and one answer holds in memory.
PAGE_LIMIT: Final = 1000
# PostgreSQL takes no NUL in a text: without this such a filter would end as a failure of ours.
_PLAIN: Final = r"^[^\x00-\x1f]+$"
"""A name or id, without control characters."""

Text = Annotated[str | None, Query(min_length=1, max_length=256, pattern=_PLAIN)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
Format = Literal["json", "jsonl", "csv"]

_CSV_COLUMNS: Final = (
    "log", "n", "at", "action", "decision", "reason", "actor", "actor_idp", "context", "instance_name",
    "server_name", "references", "entity_id", "detail", "trace_id",
)  # fmt: skip
# As OWASP lists them; tab and carriage return count, since spreadsheets skip them.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


class RecordPage(BaseModel):
    """Records, oldest first; `next` continues the list."""

    items: tuple[AuditRecord, ...]
    next: int | None


class LeaseItem(BaseModel):
    """One lease: who may hold which value until when, and how it ended."""

    lease_id: str
    reference_id: str
    reference_name: str
    version: str
    field: str
    subject: str
    subject_idp: str
    context: str
    instance_id: str
    instance_name: str
    server_id: str
    server_name: str
    opened_at: datetime
    expires_at: datetime
    released: bool
    ended_at: datetime | None
    why: str


class LeasePage(BaseModel):
    """Leases by id; `next` continues the list."""

    items: tuple[LeaseItem, ...]
    next: str | None


class Use(BaseModel):
    """Who had a value of a reference, and how often it was given to them there, presumed deliveries included."""

    subject: str
    subject_idp: str
    context: str
    instance_id: str
    instance_name: str
    server_name: str
    times: int
    first_at: datetime
    last_at: datetime


class WhoDid(BaseModel):
    """Everybody who held a value of one reference in a span of time."""

    reference: str
    items: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The filters of the list of records."""

    reference: Text = None
    subject: Text = None
    instance: Text = None
    action: AuditAction | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    # What a bigint holds: beyond it the driver fails instead of finding nothing.
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0
    limit: Limit = 100

    def query(self) -> RecordQuery:
        """As the store takes it."""
        return RecordQuery(
            reference=self.reference,
            subject=self.subject,
            instance=self.instance,
            action=self.action,
            since=self.since,
            until=self.until,
            after=self.after,
            limit=self.limit,
        )


def routes(begin: Transaction, clock: Clock, guard: AdminGuard) -> APIRouter:
    """All routes; each is for whoever has a role."""
    anyone = guard.requires(Role.ADMIN, Role.OPERATOR, Role.AUDITOR)
    router = APIRouter(prefix="/v1", dependencies=[Depends(anyone)])
    _record_routes(router, begin)
    _lease_routes(router, begin, clock)
    return router


def _record_routes(router: APIRouter, begin: Transaction) -> None:
    @router.get("/records", response_model=RecordPage)
    async def list_records(asked: Annotated[Asked, Depends()], format: Format = "json") -> Any:  # noqa: A002 - public
        """Records, oldest first. `jsonl` and `csv` stream everything that matches, whatever the limit."""
        if format != "json":
            return _export(begin, asked.query(), format)
        async with begin() as journal:
            found = await journal.records(asked.query())
        return RecordPage(items=tuple(found), next=found[-1].n if len(found) == asked.limit else None)


def _lease_routes(router: APIRouter, begin: Transaction, clock: Clock) -> None:
    @router.get("/leases")
    async def list_leases(
        reference: Text = None,
        instance: Text = None,
        open: bool = True,  # noqa: A002, FBT001, FBT002 - the name of the public parameter
        after: Text = None,
        limit: Limit = 100,
    ) -> LeasePage:
        """Leases: those that somebody may hold now, or all of them."""
        # One moment for both questions: given by then, and not over by then.
        at = clock() if open else None
        query = LeaseQuery(
            reference=reference, instance=instance, given_by=at, open_at=at, after=after or "", limit=limit
        )
        async with begin() as journal:
            found = await journal.leases(query)
        cursor = found[-1].opened.lease_id if len(found) == limit else None
        return LeasePage(items=tuple(map(_lease_item, found)), next=cursor)

    @router.get("/references/{reference:path}/who-did")
    async def who_did(
        reference: Annotated[str, PathParameter(min_length=1, max_length=256, pattern=_PLAIN)],
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
    ) -> WhoDid:
        """Everybody who held a value of a reference at some time between, by name or id."""
        # The whole history is folded page by page: what is kept in memory grows with people and places, not with
        # releases.
        query = LeaseQuery(reference=reference, since=since, until=until, given_by=clock(), limit=PAGE_LIMIT)
        uses: dict[tuple[str, ...], Use] = {}
        async for view in _all_leases(begin, query):
            # The resolver says itself that nothing went out; any other end means that the value was there until then.
            if view.why != ABANDONED:
                _count(uses, view.opened)
        return WhoDid(reference=reference, items=tuple(uses.values()))


async def _all(begin: Transaction, query: RecordQuery) -> AsyncIterator[AuditRecord]:
    """Every record that matches, a page a transaction: a slow reader never holds one open."""
    page: Sequence[AuditRecord] = ()
    while True:
        async with begin() as journal:
            page = await journal.records(query)
        for record in page:
            yield record
        if len(page) < query.limit:
            return
        query = replace(query, after=page[-1].n)


def _export(begin: Transaction, query: RecordQuery, kind: Format) -> StreamingResponse:
    # The page's limit is for lists; an export that silently ended after a hundred records would be believed.
    query = replace(query, limit=PAGE_LIMIT)
    if kind == "jsonl":
        lines = (record.to_json() + b"\n" async for record in _all(begin, query))
        return StreamingResponse(lines, media_type="application/x-ndjson")
    return StreamingResponse(_csv(_all(begin, query)), media_type="text/csv; charset=utf-8")


async def _csv(found: AsyncIterator[AuditRecord]) -> AsyncIterator[str]:
    yield _line(_CSV_COLUMNS)
    async for record in found:
        fields = record.model_dump(mode="json", include=set(_CSV_COLUMNS))
        fields["references"] = " ".join(f"{one.name}@{one.version}" for one in record.references)
        yield _line([_safe_cell(fields[name]) for name in _CSV_COLUMNS])


def _line(cells: Sequence[object]) -> str:
    target = io.StringIO()
    csv.writer(target).writerow(cells)
    return target.getvalue()


def _safe_cell(value: object) -> object:
    """Names are other people's text: a spreadsheet must not run one as a formula (OWASP, CSV Injection)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


async def _all_leases(begin: Transaction, query: LeaseQuery) -> AsyncIterator[LeaseView]:
    while True:
        async with begin() as journal:
            page = await journal.leases(query)
        for view in page:
            yield view
        if len(page) < query.limit:
            return
        query = replace(query, after=page[-1].opened.lease_id)


def _count(uses: dict[tuple[str, ...], Use], lease: Opened) -> None:
    # With the provider: the same name at two of them is two people.
    key = (lease.subject_idp, lease.subject, lease.context, lease.instance_id, lease.server_id)
    seen = uses.get(key)
    if seen is not None:
        first, last = min(seen.first_at, lease.opened_at), max(seen.last_at, lease.opened_at)
        uses[key] = seen.model_copy(update={"times": seen.times + 1, "first_at": first, "last_at": last})
        return
    uses[key] = Use(
        subject=lease.subject,
        subject_idp=lease.subject_idp,
        context=lease.context,
        instance_id=lease.instance_id,
        instance_name=lease.instance_name,
        server_name=lease.server_name,
        times=1,
        first_at=lease.opened_at,
        last_at=lease.opened_at,
    )


def _lease_item(view: LeaseView) -> LeaseItem:
    named = {name: getattr(view.opened, name) for name in Opened.__slots__}
    return LeaseItem(**named, ended_at=view.ended_at, why=view.why)
