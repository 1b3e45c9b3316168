"""The catalog as one immutable value: sources, and references by id and by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rpds import HashTrieMap

from services.resolver.domain.facts import CatalogFact, Reference, Source
from services.resolver.domain.index import less_fact, with_fact


@dataclass(frozen=True, slots=True)
class CatalogState:
    """Everything that the `catalog` topic says. The next state shares its structure with this one."""

    facts: HashTrieMap[str, CatalogFact] = field(default_factory=HashTrieMap)
    references: HashTrieMap[str, tuple[Reference, ...]] = field(default_factory=HashTrieMap)
    """By name."""

    def reference(self, id_: str) -> Reference | None:
        """The reference of that id, readable or not."""
        fact = self.facts.get(id_)
        return fact if isinstance(fact, Reference) else None

    def source(self, id_: str) -> Source | None:
        """The source of that id."""
        fact = self.facts.get(id_)
        return fact if isinstance(fact, Source) else None

    def put(self, fact: CatalogFact) -> CatalogState:
        """The state in which `fact` has replaced whatever its key held."""
        # Out of the old place first: a reference that was renamed must not be found by both names.
        cleared = self.drop(fact.id)
        changed: dict[str, Any] = {"facts": cleared.facts.insert(fact.id, fact)}
        if isinstance(fact, Reference):
            changed["references"] = with_fact(cleared.references, fact.name, fact)
        return replace(cleared, **changed)

    def drop(self, id_: str) -> CatalogState:
        """The state in which this key holds nothing."""
        fact = self.facts.get(id_)
        if fact is None:
            return self
        changed: dict[str, Any] = {"facts": self.facts.remove(id_)}
        if isinstance(fact, Reference):
            changed["references"] = less_fact(self.references, fact.name, fact)
        return replace(self, **changed)


EMPTY_CATALOG = CatalogState()
