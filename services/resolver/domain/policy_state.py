"""Policy as one immutable value: its facts by id, the indices that a decision needs, and the digest of it all.

`put` and `drop` give the next state and share almost all structure with this one (persistent maps), so a decision
keeps the state that it began with while newer ones come. A fact that was deleted, or can no longer be read, leaves
every index at once. Nothing here verifies a signature: whoever uses a fact asks (`decision`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from rpds import HashTrieMap

from services.resolver.domain.facts import (
    Binding,
    Choice,
    Grant,
    Idp,
    Instance,
    Mapping,
    PolicyFact,
    Profile,
    Server,
    Variable,
)
from services.resolver.domain.index import less_fact, with_fact
from shared.projection import digest

GroupKey = tuple[str, str]
"""(idp id, group)"""
ServerKey = tuple[str, str]
"""(profile id, server id)"""
GrantKey = tuple[str, str]
"""(profile id, reference id)"""
ChoiceKey = tuple[str, str, str]
"""(idp id, subject, server id)"""


@dataclass(frozen=True, slots=True)
class Tick:
    """Policy's newest signed tick. `at` is policy's clock, `arrived_at` our own monotonic one, in seconds.

    `matched` tells whether our records had the tick's digest when it came.
    """

    at: datetime
    arrived_at: float
    matched: bool


@dataclass(frozen=True, slots=True)
class PolicyState:
    """Everything that the `policy` topic says. Look-ups give None or nothing for what is absent."""

    facts: HashTrieMap[str, PolicyFact] = field(default_factory=HashTrieMap)
    digest: int = 0
    tick: Tick | None = None
    idps: HashTrieMap[str, Idp] = field(default_factory=HashTrieMap)
    instances: HashTrieMap[str, Instance] = field(default_factory=HashTrieMap)
    servers: HashTrieMap[str, tuple[Server, ...]] = field(default_factory=HashTrieMap)
    mappings: HashTrieMap[GroupKey, tuple[Mapping, ...]] = field(default_factory=HashTrieMap)
    bindings: HashTrieMap[ServerKey, tuple[Binding, ...]] = field(default_factory=HashTrieMap)
    grants: HashTrieMap[GrantKey, tuple[Grant, ...]] = field(default_factory=HashTrieMap)
    variables: HashTrieMap[str, tuple[Variable, ...]] = field(default_factory=HashTrieMap)
    choices: HashTrieMap[ChoiceKey, tuple[Choice, ...]] = field(default_factory=HashTrieMap)

    def instance(self, id_: str) -> Instance | None:
        """The enrolled instance of that id, active or not."""
        return self.instances.get(id_)

    def profile(self, id_: str) -> Profile | None:
        """The profile of that id."""
        fact = self.facts.get(id_)
        return fact if isinstance(fact, Profile) else None

    def put(self, fact: PolicyFact) -> PolicyState:
        """The state in which `fact` has replaced whatever its key held."""
        # Out of the old place first: a grant that moved to another profile must not be left in two.
        cleared = self.drop(fact.id)
        changed = cleared.indexed(fact, with_fact)
        changed["facts"] = cleared.facts.insert(fact.id, fact)
        changed["digest"] = digest.add(cleared.digest, digest.entry(fact.id, fact.evidence.payload))
        return replace(cleared, **changed)

    def drop(self, id_: str) -> PolicyState:
        """The state in which this key holds nothing."""
        fact = self.facts.get(id_)
        if fact is None:
            return self
        changed = self.indexed(fact, less_fact)
        changed["facts"] = self.facts.remove(id_)
        # With the payload that was counted when it came: the deletion itself brings none.
        changed["digest"] = digest.remove(self.digest, digest.entry(id_, fact.evidence.payload))
        return replace(self, **changed)

    def ticked(self, *, at: datetime, arrived_at: float, claimed: str) -> PolicyState:
        """The state after a tick that says that all records up to it have the digest `claimed`."""
        # Compared when it comes and not when it is asked: later records change our digest, rightly.
        return replace(self, tick=Tick(at, arrived_at, digest.text(self.digest) == claimed))

    def indexed(self, fact: PolicyFact, edit: Callable[[Any, Any, Any], Any]) -> dict[str, Any]:  # noqa: PLR0911 - one a kind
        """The index that has this kind of fact, edited: `with_fact` or `less_fact`."""
        match fact:
            case Grant(profile_id=profile, reference_id=reference):
                return {"grants": edit(self.grants, (profile, reference), fact)}
            case Binding(profile_id=profile, server_id=server):
                return {"bindings": edit(self.bindings, (profile, server), fact)}
            case Mapping(idp_id=idp, group=group):
                return {"mappings": edit(self.mappings, (idp, group), fact)}
            case Server(name=name):
                return {"servers": edit(self.servers, name, fact)}
            case Variable(name=name):
                return {"variables": edit(self.variables, name, fact)}
            case Choice(idp_id=idp, subject=subject, server_id=server):
                return {"choices": edit(self.choices, (idp, subject, server), fact)}
            case Instance(id=id_):
                known = self.instances
                return {"instances": known.insert(id_, fact) if edit is with_fact else known.discard(id_)}
            case Idp(id=id_):
                # Few, and asked for as a whole: no index by key.
                return {"idps": self.idps.insert(id_, fact) if edit is with_fact else self.idps.discard(id_)}
            case _:
                # Profiles are asked for by id only, and what can't be read by nobody.
                return {}


EMPTY_POLICY = PolicyState()
