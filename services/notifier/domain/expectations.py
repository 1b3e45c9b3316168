"""Who must act on a notice: frozen once, when it was published.

In it is everyone who could hold or hand out the old value at that moment. Whoever starts later reads state that
already holds the change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from services.notifier.domain.convergence import Bounds, Member, MemberKind, holds_until
from services.notifier.domain.receipts import GatewayRun, ResolverRun, live_runs
from shared.projection.instances import KnownInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """The notice that told of an instance's end: its commit of policy, where it stands, and since when."""

    instance_id: str
    policy_seq: int
    offset: int
    at: datetime


def is_gone(
    instance: KnownInstance, departure: Departure | None, runs: tuple[GatewayRun, ...], *, at: datetime, bounds: Bounds
) -> bool:
    """Whether a banned or removed instance can't hold anything any more: its end was told, and has converged.

    Until then it is waited for like any other: it may still hold what it was given.
    """
    # An end that was told before the instance came back says nothing about the end that is in force.
    if departure is None or departure.policy_seq < instance.since_seq:
        return False
    live = live_runs(runs, bound=bounds.gateway)
    # No run at all proves nothing: then only the bound does.
    dropped = bool(live) and all(run.dropped_offset >= departure.offset for run in live)
    return dropped or holds_until(live, offset=departure.offset, since=departure.at, bound=bounds.gateway) <= at


def expected_members(
    instances: Iterable[KnownInstance],
    resolvers: Iterable[ResolverRun],
    *,
    gone: Collection[str],
    at: datetime,
    bounds: Bounds,
) -> tuple[Member, ...]:
    """Everyone who must act on a notice published at `at`.

    A replica that was silent for its bound is not among them: it refuses by itself.
    """
    gateways = (
        Member(kind=MemberKind.GATEWAY, id=instance.id, name=instance.name or instance.id)
        for instance in sorted(instances, key=lambda instance: instance.id)
        if instance.active or instance.id not in gone
    )
    replicas = (
        Member(kind=MemberKind.RESOLVER, id=run.replica_id, run=run.run, name=run.replica_id)
        for run in sorted(resolvers, key=lambda run: (run.replica_id, run.run))
        if not run.stopping and run.heard_at + bounds.resolver > at
    )
    return (*gateways, *replicas)
