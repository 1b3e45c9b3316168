"""Timed grants: what happens when a window opens or closes, by the database's clock."""

from __future__ import annotations

from services.policy.commands.outcomes import delete
from services.policy.domain.grants import is_open, is_over
from services.policy.domain.kinds import Kind
from services.policy.domain.ports import Receipt, Work
from shared.events.changes import Actor, PolicyAction
from shared.events.policy import GrantRecord


def clock() -> Actor:
    """Who acts when time does."""
    return Actor(idp="keyfob", subject="clock")


async def turn(work: Work, grant: GrantRecord) -> Receipt:
    """Say that a grant's window opened, or end the grant whose window is over.

    An ended grant is deleted, so that no clock but the database's decides, and nobody finds it and hopes. A started
    one is published again: readers wait for a commit by the record that carries its number.
    """
    if is_over(grant, at=work.now):
        return await delete(work, grant, action=PolicyAction.ENDED)
    work.put(grant.model_copy(update={"seq": work.seq, "revision": grant.revision + 1}))
    # One that has not begun was not due: somebody moved its moment in the database. Written again, it has its own.
    action = PolicyAction.STARTED if is_open(grant, at=work.now) else PolicyAction.UPDATED
    return work.announce(action, kind=Kind.GRANT, entity_id=grant.id)
