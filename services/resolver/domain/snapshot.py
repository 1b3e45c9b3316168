"""One moment of both topics: what a decision is made on, and how far it had come."""

from __future__ import annotations

from dataclasses import dataclass

from services.resolver.domain.catalog_state import EMPTY_CATALOG, CatalogState
from services.resolver.domain.policy_state import EMPTY_POLICY, PolicyState


@dataclass(frozen=True, slots=True)
class Floor:
    """How far each topic was, or must have been, applied: commit sequences of policy and of sync."""

    policy: int
    catalog: int

    def covers(self, other: Floor) -> bool:
        """Whether this is at least as far as `other` in both."""
        return self.policy >= other.policy and self.catalog >= other.catalog


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is known, complete up to `floor`."""

    floor: Floor = Floor(0, 0)
    policy: PolicyState = EMPTY_POLICY
    catalog: CatalogState = EMPTY_CATALOG

    def same_facts(self, other: Snapshot) -> bool:
        """Whether this holds the very same facts as `other`; a tick alone changes none. Never waits, costs nothing."""
        return self.policy.facts is other.policy.facts and self.catalog.facts is other.catalog.facts
