"""Who may still use what a notice ended. The answer is never "nobody" while somebody can.

A member of the frozen expected set leaves it in two ways only:

    dropped   it says so itself: a gateway that what rested on the notice is gone, a resolver that it decides on
              state that holds the change, or that it answers nothing any more
    expired   it cannot use the value any more whatever it says or does not say: a gateway without a tick for its
              bound drops everything, a resolver without one refuses everything

Ticks and notices stand in one topic, so a gateway that did not see the notice saw no later tick either, and its
bound runs from the notice's publication. A receipt that shows a member alive and not done moves the bound: it had
ticks when it wrote that. A stopped process is therefore pending until its bound, never done.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.notifier.domain.receipts import GatewayRun, Heard, ResolverRun, live_runs
from shared.events.notices import Notice


class MemberKind(StrEnum):
    """What may hold or hand out a value."""

    GATEWAY = "gateway"
    RESOLVER = "resolver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of those who must act. `run` is set for resolvers, whose every process counts by itself."""

    kind: MemberKind
    id: str
    run: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing shows that the member knows. By `until` it can't use the value any more."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Fenced:
    """The member allows no new use; what was running is being stopped."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Dropped:
    """The member proved that it holds nothing of it; known since `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Expired:
    """The member is silent, and by its own bound it can't have used the value since `at`."""

    at: datetime


Standing = Pending | Fenced | Dropped | Expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """After how long without a tick a member stops by itself; allowances for clocks are included."""

    gateway: timedelta
    resolver: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A notice as it stands in the topic, and who must act on it. `members` was frozen once and stays.

    `bounds_from` is when it was in the topic for certain: everybody's bound runs from there.
    """

    notice: Notice
    offset: int
    at: datetime
    bounds_from: datetime
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class MemberStanding:
    """Where one member stands, and when it was last heard of."""

    member: Member
    standing: Standing
    heard_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Convergence:
    """Where everybody stands."""

    members: tuple[MemberStanding, ...]

    @property
    def converged(self) -> bool:
        """Whether nobody may use the old value any more."""
        return all(isinstance(one.standing, Dropped | Expired) for one in self.members)


Settled = dict[Member, Dropped]
"""What members already proved; receipts are cumulative, so it stays true."""


def convergence(published: Published, heard: Heard, settled: Settled, *, now: datetime, bounds: Bounds) -> Convergence:
    """Where every expected member stands at `now`, from what was proved before and what was heard since."""
    return Convergence(
        tuple(_standing(member, published, heard, settled, now=now, bounds=bounds) for member in published.members)
    )


def _standing(
    member: Member, published: Published, heard: Heard, settled: Settled, *, now: datetime, bounds: Bounds
) -> MemberStanding:
    if member.kind is MemberKind.RESOLVER:
        run = heard.resolver_run(member.id, member.run)
        standing = settled.get(member) or _of_resolver(run, published, now=now, bound=bounds.resolver)
        return MemberStanding(member, standing, run.heard_at if run else None)
    # What is written down comes first: it was proved, whatever memory has forgotten since.
    runs = heard.gateway_runs(member.id)
    standing = settled.get(member) or _of_gateway(
        live_runs(runs, bound=bounds.gateway), published, now=now, bound=bounds.gateway
    )
    return MemberStanding(member, standing, max((run.heard_at for run in runs), default=None))


def _of_gateway(runs: tuple[GatewayRun, ...], published: Published, *, now: datetime, bound: timedelta) -> Standing:
    holding = _holding(runs, published.offset)
    # An instance that was never heard is not one that holds nothing: it waits for its bound.
    if runs and not holding:
        return Dropped(max(run.heard_at for run in runs))
    until = holds_until(runs, offset=published.offset, since=published.bounds_from, bound=bound)
    if now >= until:
        return Expired(until)
    # Only when every living process says so: one that has not read the notice may still start new calls.
    applied = all(run.applied_offset >= published.offset for run in holding)
    return Fenced(until) if holding and applied else Pending(until)


def _holding(runs: tuple[GatewayRun, ...], offset: int) -> list[GatewayRun]:
    return [run for run in runs if run.dropped_offset < offset]


def holds_until(runs: tuple[GatewayRun, ...], *, offset: int, since: datetime, bound: timedelta) -> datetime:
    """By when an instance that is silent from now on can't use what the notice at `offset` ended, there `since`."""
    # Alive and not done: it says that it holds leases, or that it read beyond the notice.
    alive_at = (run.heard_at for run in _holding(runs, offset) if run.open_leases or run.applied_offset >= offset)
    return max((since, *alive_at)) + bound


def _of_resolver(run: ResolverRun | None, published: Published, *, now: datetime, bound: timedelta) -> Standing:
    if run is not None and (run.stopping or _has_applied(run, published.notice)):
        return Dropped(run.heard_at)
    # Only a fresh one decides at all: a receipt that says "not fresh" proves that nothing is released.
    alive_at = run.heard_at if run is not None and run.fresh else published.bounds_from
    until = max(published.bounds_from, alive_at) + bound
    return Expired(until) if now >= until else Pending(until)


def _has_applied(run: ResolverRun, notice: Notice) -> bool:
    # Local values are in no projection: each resolve reads them where the change was committed before the notice.
    if notice.custody_seq is not None:
        return True
    if notice.policy_seq is not None:
        return run.policy_seq >= notice.policy_seq
    return notice.catalog_seq is not None and run.catalog_seq >= notice.catalog_seq


def next_bound(state: Convergence) -> datetime | None:
    """When the next silent member expires by itself; None when nobody is waited for."""
    waiting = (one.standing.until for one in state.members if isinstance(one.standing, Pending | Fenced))
    return min(waiting, default=None)


APPEND_WITHIN = timedelta(seconds=20)
"""A message that a producer was given is in the topic by then or never: its batch expires after 10 s, and so does the
last request that may have carried it."""


def certainly_published(*, given_at: datetime, read_at: datetime) -> datetime:
    """By when a message that the producer was given at `given_at`, and that was read at `read_at`, was in the topic."""
    return max(given_at, min(read_at, given_at + APPEND_WITHIN))


@dataclass(frozen=True, slots=True)
class GatewayProgress:
    """Up to which offset an instance, all of its living processes, holds nothing."""

    instance_id: str
    dropped_offset: int
    heard_at: datetime


def gateway_progress(heard: Heard, *, bounds: Bounds) -> list[GatewayProgress]:
    """How far every instance has come that was heard."""
    progress = []
    for instance_id in heard.gateways():
        runs = live_runs(heard.gateway_runs(instance_id), bound=bounds.gateway)
        # The slowest counts: where two processes have the keys, one of them may still hold it.
        dropped = min(run.dropped_offset for run in runs)
        progress.append(GatewayProgress(instance_id, dropped, max(run.heard_at for run in runs)))
    return progress
