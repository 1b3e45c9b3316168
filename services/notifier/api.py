"""The notifier's HTTP interface, for people with a role and their tools. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel

from services.notifier.domain.convergence import Convergence, Dropped, Expired, Fenced, MemberStanding, Pending
from services.notifier.domain.ports import Transaction
from services.notifier.domain.receipts import Heard
from services.notifier.inquiries import Answer, Inquiries
from shared.administration import AdminGuard, Role
from shared.errors import NotAvailable
from shared.events.alerts import Alert
from shared.events.notices import Notice, NoticeKind
from shared.projection.instances import Instances, KnownInstance

MOST_AT_ONCE = 500
# Below what proxies usually cut; a tool that waits for longer asks again.
LONGEST_WAIT_S = 30.0

Limit = Annotated[int, Query(ge=1, le=MOST_AT_ONCE)]
After = Annotated[int | None, Query(ge=0, le=2**63 - 1)]
# What ids of events may hold (`shared.events.contract.Id`): nothing else can be found, and nothing else is asked for.
_ID = r"^[A-Za-z0-9._:/-]+$"
IdQuery = Annotated[str, Query(min_length=1, max_length=200, pattern=_ID)]
IdPath = Annotated[str, Path(min_length=1, max_length=200, pattern=_ID)]


class MemberView(BaseModel):
    """One who must act. `at`: since when it is dropped or expired; `until`: when it expires if it stays silent."""

    id: str
    name: str
    kind: str
    run: str
    state: str
    at: datetime | None = None
    until: datetime | None = None
    last_heard: datetime | None = None


class ConvergenceView(BaseModel):
    """Where everybody stands on one notice. `converged` is never true while somebody may use the old value."""

    notice: Notice
    offset: int
    published_at: datetime
    converged: bool
    converged_at: datetime | None
    members: tuple[MemberView, ...]


class NoticeView(BaseModel):
    """One line of the list of notices."""

    id: str
    kind: NoticeKind
    cause_id: str
    offset: int
    published_at: datetime
    converged: bool
    converged_at: datetime | None
    members: int
    waiting: int


class NoticePage(BaseModel):
    """Notices, newest first; `next` continues the list."""

    items: tuple[NoticeView, ...]
    next: int | None


class InstanceView(BaseModel):
    """What an instance said last; all empty for one that was never heard."""

    instance_id: str
    name: str
    active: bool
    run: str | None = None
    applied_offset: int | None = None
    dropped_offset: int | None = None
    open_leases: int | None = None
    variables: tuple[str, ...] = ()
    last_heard: datetime | None = None


class InstanceList(BaseModel):
    """All enrolled instances."""

    items: tuple[InstanceView, ...]
    next: None = None


class ResolverView(BaseModel):
    """What one run of a resolver replica said last."""

    replica_id: str
    run: str
    policy_seq: int
    catalog_seq: int
    fresh: bool
    stopping: bool
    last_heard: datetime


class ResolverList(BaseModel):
    """Resolver replicas that were heard lately."""

    items: tuple[ResolverView, ...]
    next: None = None


class AlertPage(BaseModel):
    """Alerts, newest first; `next` continues the list."""

    items: tuple[Alert, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Ports:
    """What the routes need."""

    inquiries: Inquiries
    begin: Transaction
    heard: Heard
    instances: Callable[[], Instances]


def routes(ports: Ports, guard: AdminGuard) -> APIRouter:
    """All routes; each is for whoever has a role."""
    anyone = guard.requires(Role.ADMIN, Role.OPERATOR, Role.AUDITOR)
    router = APIRouter(prefix="/v1", dependencies=[Depends(anyone)])
    _notice_routes(router, ports)
    _member_routes(router, ports)
    return router


def _notice_routes(router: APIRouter, ports: Ports) -> None:
    @router.get("/notices")
    async def list_notices(limit: Limit = 50, after: After = None) -> NoticePage:
        """Notices, newest first."""
        found = await ports.inquiries.newest(limit=limit, before_offset=after)
        return NoticePage(
            items=tuple(map(_line, found)),
            next=found[-1].noted.published.offset if len(found) == limit else None,
        )

    @router.get("/notices/{notice_id:path}")
    async def show_notice(notice_id: IdPath) -> ConvergenceView:
        """One notice by its id, and where everybody stands."""
        answer = await ports.inquiries.find(notice_id)
        # 404 and not null as below: who has the id of a notice has seen it, who has that of an event may be early.
        if answer is None:
            raise NotAvailable
        return _view(answer)

    @router.get("/convergence")
    async def show_convergence(
        event_id: IdQuery, wait_s: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = 0.0
    ) -> ConvergenceView | None:
        """Where everybody stands on what an event ended, at once or when it converged within `wait_s` seconds.

        `event_id` may be the notice's own id. Null: the event called for no notice, or there is none yet.
        """
        answer = await ports.inquiries.converged(event_id, wait_s=wait_s)
        return None if answer is None else _view(answer)

    @router.get("/alerts")
    async def list_alerts(limit: Limit = 50, after: After = None) -> AlertPage:
        """What people should know, newest first."""
        async with ports.begin() as notes:
            found = await notes.alerts(limit=limit, before_n=after)
        return AlertPage(items=tuple(one.alert for one in found), next=found[-1].n if len(found) == limit else None)


def _member_routes(router: APIRouter, ports: Ports) -> None:
    @router.get("/instances")
    async def list_instances() -> InstanceList:
        """Enrolled instances and what each said last."""
        # Active ones first: a list of years of removed instances must not hide who is there.
        known = sorted(ports.instances().all(), key=lambda one: (not one.active, one.name, one.id))
        return InstanceList(items=tuple(_instance(one, ports.heard) for one in known))

    @router.get("/resolvers")
    async def list_resolvers() -> ResolverList:
        """Resolver replicas and how far they have come."""
        runs = sorted(ports.heard.resolvers(), key=lambda run: (run.replica_id, run.heard_at))
        views = (
            ResolverView(
                replica_id=run.replica_id,
                run=run.run,
                policy_seq=run.policy_seq,
                catalog_seq=run.catalog_seq,
                fresh=run.fresh,
                stopping=run.stopping,
                last_heard=run.heard_at,
            )
            for run in runs
        )
        return ResolverList(items=tuple(views))


def _line(answer: Answer) -> NoticeView:
    published = answer.noted.published
    return NoticeView(
        id=published.notice.id,
        kind=published.notice.kind,
        cause_id=published.notice.cause_id,
        offset=published.offset,
        published_at=published.at,
        converged=answer.state.converged,
        converged_at=answer.noted.converged_at,
        members=len(answer.state.members),
        waiting=_waiting(answer.state),
    )


def _waiting(state: Convergence) -> int:
    return sum(isinstance(one.standing, Pending | Fenced) for one in state.members)


def _view(answer: Answer) -> ConvergenceView:
    published = answer.noted.published
    return ConvergenceView(
        notice=published.notice,
        offset=published.offset,
        published_at=published.at,
        converged=answer.state.converged,
        # Only proofs are written down; where somebody expired the moment follows from the bounds.
        converged_at=answer.noted.converged_at or _last(answer.state),
        members=tuple(map(_member, answer.state.members)),
    )


def _last(state: Convergence) -> datetime | None:
    """When the last one could not use it any more; None while somebody may."""
    if not state.converged:
        return None
    ends = (one.standing.at for one in state.members if isinstance(one.standing, Dropped | Expired))
    return max(ends, default=None)


def _member(one: MemberStanding) -> MemberView:
    common: dict[str, Any] = {
        "id": one.member.id,
        "name": one.member.name,
        "kind": one.member.kind.value,
        "run": one.member.run,
        "last_heard": one.heard_at,
    }
    match one.standing:
        case Dropped(at):
            return MemberView(**common, state="dropped", at=at)
        case Expired(at):
            return MemberView(**common, state="expired", at=at)
        case Fenced(until):
            return MemberView(**common, state="fenced", until=until)
        case Pending(until):
            return MemberView(**common, state="pending", until=until)


def _instance(known: KnownInstance, heard: Heard) -> InstanceView:
    common: dict[str, Any] = {"instance_id": known.id, "name": known.name, "active": known.active}
    runs = heard.gateway_runs(known.id)
    if not runs:
        return InstanceView(**common)
    newest = runs[-1]
    return InstanceView(
        **common,
        run=newest.run,
        applied_offset=newest.applied_offset,
        dropped_offset=newest.dropped_offset,
        open_leases=newest.open_leases,
        variables=newest.variables,
        last_heard=newest.heard_at,
    )
