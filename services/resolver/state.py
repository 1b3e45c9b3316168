"""What this replica knows and whether it can prove that this is current: two projections and policy's tick.

A replica that cannot prove it refuses (`stale`). Every reason is safe to show.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from services.resolver.domain.catalog_state import EMPTY_CATALOG, CatalogState
from services.resolver.domain.facts import Evidence, Unreadable, catalog_fact, policy_fact
from services.resolver.domain.policy_state import EMPTY_POLICY, PolicyState, Tick
from services.resolver.domain.snapshot import Floor, Snapshot
from services.resolver.trust import Trust
from shared import topics
from shared.bus.connection import KafkaSettings
from shared.bus.signatures import from_header
from shared.bus.whole_topic import WholeTopicReader
from shared.events.policy import TickRecord
from shared.events.registry import CATALOG_RECORDS, POLICY_RECORDS
from shared.projection.changes import Change, Removed, Upserted
from shared.projection.projection import Projection
from shared.projection.records import TypedRecord, registry

_log = structlog.get_logger(__name__)

Monotonic = Callable[[], float]


class Knowledge(Protocol):
    """What a resolve needs to know. None of the methods but `reach` waits."""

    def snapshot(self) -> Snapshot:
        """The newest whole picture."""
        ...

    def stale(self) -> str | None:
        """Why the newest picture can't be proved to be current; None when it is proved."""
        ...

    async def reach(self, floor: Floor, *, within_s: float) -> bool:
        """Wait until the newest picture covers `floor`; False when it does not in time."""
        ...


def evidence_of(typed: TypedRecord) -> Evidence:
    """The signed bytes of a record, in the form that facts keep."""
    return Evidence(
        # Some few texts in a million records: interned, each costs a pointer.
        sys.intern(typed.topic),
        sys.intern(typed.type),
        typed.key,
        typed.payload,
        from_header(typed.signed),
        None if typed.key_id is None else sys.intern(typed.key_id),
    )


def policy_apply(trust: Trust, clock: Monotonic) -> Callable[[PolicyState, Change], PolicyState]:
    """The step from one policy state to the next. A tick counts only if policy signed it."""

    def apply(state: PolicyState, change: Change) -> PolicyState:
        match change:
            case Upserted(TypedRecord(record=TickRecord() as tick) as typed):
                # Freshness rests on it alone, so here and not at first use; one signature a second costs nothing.
                if not trust(evidence_of(typed)):
                    # The last one that counted stays, and grows old by itself: a forged one says nothing.
                    return state
                return state.ticked(at=tick.at, arrived_at=clock(), claimed=tick.digest)
            case Upserted(typed):
                return state.put(policy_fact(typed.record, evidence_of(typed)))
            case Removed(key=key):
                return _removed_policy(state, key, change)

    return apply


def _removed_policy(state: PolicyState, key: str, change: Removed) -> PolicyState:
    """An unreadable record gives nobody anything, but policy counts it in its digest, and so must we."""
    if change.payload is None:
        return state.drop(key)
    # Only its payload counts, for the digest: without a signature nothing of it is ever trusted.
    return state.put(Unreadable(Evidence(topics.POLICY, "", key, change.payload, None, None), key))


def catalog_apply(state: CatalogState, change: Change) -> CatalogState:
    """The step from one catalog state to the next."""
    match change:
        case Upserted(typed):
            return state.put(catalog_fact(typed.record, evidence_of(typed)))
        case Removed(key=key):
            return state.drop(key)


def stale_tick(tick: Tick | None, *, now: datetime, monotonic: float, bound_s: float) -> str | None:
    """Why policy's tick proves nothing: none, too old by either clock, or of another set of records."""
    if tick is None:
        return "policy-tick-missing"
    if monotonic - tick.arrived_at > bound_s or (now - tick.at).total_seconds() > bound_s:
        return "policy-tick-old"
    return None if tick.matched else "policy-digest"


@dataclass(frozen=True, slots=True)
class ProjectedKnowledge:
    """`Knowledge` from the two topics."""

    policy: Projection[PolicyState]
    catalog: Projection[CatalogState]
    tick_bound_s: float
    monotonic: Monotonic = time.monotonic

    def snapshot(self) -> Snapshot:
        """See `Knowledge`."""
        # No lock: both are swapped whole on this event loop, and nothing here awaits.
        policy, catalog = self.policy, self.catalog
        return Snapshot(Floor(policy.seq, catalog.seq), policy.snapshot, catalog.snapshot)

    def stale(self) -> str | None:
        """See `Knowledge`: starting, behind an end offset asked for lately, or without a tick that fits."""
        for name, projection in (("policy", self.policy), ("catalog", self.catalog)):
            if not projection.ready:
                return f"{name}-not-ready"
            if not projection.freshness.is_fresh():
                return f"{name}-behind"
        # Two clocks: a tick that was held back arrives late by policy's, one that stopped is old by ours.
        tick, now = self.policy.snapshot.tick, datetime.now(UTC)
        return stale_tick(tick, now=now, monotonic=self.monotonic(), bound_s=self.tick_bound_s)

    async def reach(self, floor: Floor, *, within_s: float) -> bool:
        """See `Knowledge`; both topics are waited for within the one bound."""
        # Nearly always: two tasks and two timers less on the way of each resolve.
        if self.policy.seq >= floor.policy and self.catalog.seq >= floor.catalog:
            return True
        reached = await asyncio.gather(
            self.policy.wait_for(floor.policy, timeout_s=within_s),
            self.catalog.wait_for(floor.catalog, timeout_s=within_s),
        )
        return all(reached)

    async def moved(self, beyond: Floor, *, within_s: float) -> None:
        """Wait until either topic is beyond what `beyond` says, at most `within_s`."""
        waits = [
            asyncio.create_task(self.policy.wait_for(beyond.policy + 1, timeout_s=within_s)),
            asyncio.create_task(self.catalog.wait_for(beyond.catalog + 1, timeout_s=within_s)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            # Each takes itself out of its projection's list of waiters, also when it was cancelled.
            await asyncio.gather(*waits, return_exceptions=True)

    def not_ready(self) -> str | None:
        """The reason for the readiness route."""
        return self.policy.reason or self.catalog.reason or self.stale()

    async def follow(self) -> None:
        """Follow both topics until cancelled. A topic that lost its order leaves this replica refusing for good."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.policy.run())
            group.create_task(self.catalog.run())


def projected(kafka: KafkaSettings, trust: Trust, *, tick_bound_s: float) -> ProjectedKnowledge:
    """The projections of a replica, not yet running."""
    return ProjectedKnowledge(
        policy=Projection(
            WholeTopicReader(kafka, topics.POLICY),
            known=registry(*POLICY_RECORDS),
            empty=EMPTY_POLICY,
            apply=policy_apply(trust, time.monotonic),
        ),
        catalog=Projection(
            WholeTopicReader(kafka, topics.CATALOG),
            known=registry(*CATALOG_RECORDS),
            empty=EMPTY_CATALOG,
            apply=catalog_apply,
        ),
        tick_bound_s=tick_bound_s,
    )
