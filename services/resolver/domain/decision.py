"""Who gets what: one pure function over one snapshot, asked twice for every release.

Everything is denied unless a chain of records says otherwise: instance, identity provider, mapping, profile, server,
binding, and what the binding names: a reference with its source and grant, or a variable of the instance. Each link
must be trusted (its signature holds) or it counts as absent.
"""

from __future__ import annotations

from datetime import datetime

from services.resolver.domain.chain import Chain, Refusal
from services.resolver.domain.plans import (
    Allowed,
    Denied,
    Item,
    Person,
    Plan,
    Reason,
    Trusts,
    Wish,
)
from services.resolver.domain.snapshot import Snapshot

__all__ = ["Allowed", "Denied", "Item", "Person", "Plan", "Reason", "Trusts", "Wish", "decide"]


def decide(
    snapshot: Snapshot, person: Person, instance_id: str, wish: Wish, *, now: datetime, trusts: Trusts
) -> Allowed | Denied:
    """Whether `person` on the instance gets what it wishes for at `now` (UTC), from what `snapshot` knows.

    1. The instance is active, and the token's identity provider is one of ours.
    2. The server exists, takes fields, and may run on this instance.
    3. The context is one of the person's own profiles; without one, exactly one profile binds the server.
    4. Each field is bound for this definition: to a readable reference that is granted for just this use, or to a
       variable that may be read on instances with such labels.
    """
    chain = Chain(snapshot, person, now, trusts)
    try:
        grounds = chain.grounds(instance_id, wish)
        items = tuple(chain.item(field.name, wish.choices.get(field.name), grounds) for field in grounds.server.fields)
    except Refusal as refusal:
        return refusal.denied
    return Allowed(
        Plan(snapshot.floor, grounds.instance, grounds.server, grounds.profile, grounds.mapping.group, items)
    )
