"""What gateways and resolvers said last: cumulative, so that the newest receipt of a run tells its whole story.

A run is one life of a process. Receipts of one instance stand in one partition, so their order is that of sending;
`heard_at` is when the receipt was written, never later than when it was read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.notifier.domain.times import EPOCH
from shared.events.receipts import GatewayReceipt, ResolverReceipt

RUNS_KEPT = 4
"""Runs remembered for one member: the present one and those it may have replaced within a bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRun:
    """One life of an instance, as its receipts tell it. Offsets are of `notices`."""

    instance_id: str
    run: str
    n: int
    began: int
    """Place of this run's first receipt among all that were read; `spoke` is that of its newest."""
    spoke: int
    heard_at: datetime
    applied_offset: int
    dropped_offset: int
    open_leases: int
    variables: tuple[str, ...] = ()
    """Names in the instance's environment that its settings let servers have."""

    def with_receipt(self, receipt: GatewayReceipt, *, heard_at: datetime, order: int) -> GatewayRun:
        """This run after one more receipt; one that was repeated changes nothing."""
        # A topic is read again from some minutes back at each start, and producers repeat.
        if receipt.n <= self.n:
            return self
        return replace(
            self,
            n=receipt.n,
            spoke=order,
            heard_at=max(self.heard_at, heard_at),
            # As it says, also when they fall: a topic that was made anew begins at 0, and less proves less.
            applied_offset=receipt.applied_offset,
            dropped_offset=receipt.dropped_offset,
            open_leases=receipt.open_leases,
            variables=receipt.variables,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverRun:
    """One life of a resolver replica."""

    replica_id: str
    run: str
    heard_at: datetime
    policy_seq: int
    catalog_seq: int
    fresh: bool
    stopping: bool = False

    def with_receipt(self, receipt: ResolverReceipt, *, heard_at: datetime) -> ResolverRun:
        """This run after one more receipt. A farewell is final."""
        return replace(
            self,
            heard_at=max(self.heard_at, heard_at),
            policy_seq=max(self.policy_seq, receipt.policy_seq),
            catalog_seq=max(self.catalog_seq, receipt.catalog_seq),
            fresh=receipt.fresh,
            stopping=self.stopping or receipt.stopping,
        )


class Heard:
    """The newest word of every run of every member. Belongs to one event loop."""

    def __init__(self) -> None:
        self.complete_until = EPOCH
        """Everything that was said before this was taken in: a later silence may be ours. At first, nothing was."""
        self._order = 0
        self._gateways: dict[str, dict[str, GatewayRun]] = {}
        self._resolvers: dict[str, dict[str, ResolverRun]] = {}

    def gateway(self, receipt: GatewayReceipt, heard_at: datetime) -> None:
        """Take in one receipt whose signature was verified."""
        self._order += 1
        runs = self._gateways.setdefault(receipt.instance_id, {})
        known = runs.get(receipt.run)
        if known is not None:
            runs[receipt.run] = known.with_receipt(receipt, heard_at=heard_at, order=self._order)
            return
        runs[receipt.run] = GatewayRun(
            instance_id=receipt.instance_id,
            run=receipt.run,
            n=receipt.n,
            began=self._order,
            spoke=self._order,
            heard_at=heard_at,
            applied_offset=receipt.applied_offset,
            dropped_offset=receipt.dropped_offset,
            open_leases=receipt.open_leases,
            variables=receipt.variables,
        )
        # An instance that restarts in a loop must not fill the memory of everybody who listens.
        _forget_oldest(runs)

    def resolver(self, receipt: ResolverReceipt, heard_at: datetime) -> None:
        """Take in one receipt of a resolver replica."""
        runs = self._resolvers.setdefault(receipt.replica_id, {})
        known = runs.get(receipt.run)
        if known is not None:
            runs[receipt.run] = known.with_receipt(receipt, heard_at=heard_at)
            return
        runs[receipt.run] = ResolverRun(
            replica_id=receipt.replica_id,
            run=receipt.run,
            heard_at=heard_at,
            policy_seq=receipt.policy_seq,
            catalog_seq=receipt.catalog_seq,
            fresh=receipt.fresh,
            stopping=receipt.stopping,
        )
        _forget_oldest(runs)

    def gateway_runs(self, instance_id: str) -> tuple[GatewayRun, ...]:
        """An instance's runs, oldest first."""
        return tuple(self._gateways.get(instance_id, {}).values())

    def gateways(self) -> tuple[str, ...]:
        """The ids of all instances that were heard."""
        return tuple(self._gateways)

    def resolver_run(self, replica_id: str, run: str) -> ResolverRun | None:
        """One run of one replica, or None when it was never heard."""
        return self._resolvers.get(replica_id, {}).get(run)

    def resolvers(self) -> tuple[ResolverRun, ...]:
        """Every run that is remembered."""
        return tuple(run for runs in self._resolvers.values() for run in runs.values())

    def forget(self, *, silent_since: datetime) -> None:
        """Let go of resolver replicas that were last heard before `silent_since`: their names are new at each start."""
        for replica, runs in list(self._resolvers.items()):
            if all(run.heard_at < silent_since for run in runs.values()):
                del self._resolvers[replica]


def _forget_oldest(runs: dict[str, GatewayRun] | dict[str, ResolverRun]) -> None:
    while len(runs) > RUNS_KEPT:
        del runs[next(iter(runs))]


def live_runs(runs: tuple[GatewayRun, ...], *, bound: timedelta) -> tuple[GatewayRun, ...]:
    """The newest run, and every other that spoke after the newest began, for as long as it may be alive.

    An instance's runs exclude each other (it holds a lock on its own keys while it lives), so an older run that
    fell silent before the newest began is a process that is gone, and what it held with it. One that spoke after
    shows that the lock failed: it counts until it was silent for `bound`, by which it has dropped everything.
    """
    if not runs:
        return ()
    newest = runs[-1]
    others = (run for run in runs[:-1] if run.spoke > newest.began and newest.heard_at - run.heard_at <= bound)
    return (*others, newest)
