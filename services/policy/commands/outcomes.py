"""What became of a command, and the three moves that all commands are made of: create, replace, delete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from services.policy.domain.kinds import FALLING, Kind, content, kind_of, kind_of_model, name_of
from services.policy.domain.ports import Receipt, Work
from shared.errors import BadRequest, Conflict, NotAvailable
from shared.events.changes import PolicyAction
from shared.events.policy import ChoiceRecord, GrantRecord, PolicyRecord

R = TypeVar("R", bound=PolicyRecord)
R_co = TypeVar("R_co", bound=PolicyRecord, covariant=True)

MOST_ENDED: Final = 5_000
"""Ids in one event: some 250 KB. A lease that rests on one beyond it rests on the deleted entity too, which comes
first, so that nothing outlives the cut."""


@dataclass(frozen=True, slots=True)
class Created(Generic[R_co]):
    """It is new."""

    record: R_co
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Updated(Generic[R_co]):
    """It was there and is different now."""

    record: R_co
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Unchanged(Generic[R_co]):
    """It was already so; the receipt is that of the last change."""

    record: R_co
    receipt: Receipt


Outcome = Created[R_co] | Updated[R_co] | Unchanged[R_co]


async def create(work: Work, record: R) -> Created[R] | Unchanged[R]:
    """Let a new entity stand; the same content again is the entity that stands, other content is a `Conflict`."""
    found = await work.standing(record)
    if found is None:
        work.put(record)
        return Created(record, _announce(work, PolicyAction.CREATED, record))
    standing, receipt = found
    # Content without ids and moments: a script that runs twice finds what it made, and hears of what differs.
    if content(standing) != content(record):
        raise Conflict(f"There is a {kind_of(record)} like that with other content: change or delete that one.")
    return Unchanged(standing, receipt)


async def change(work: Work, current: R, wanted: R, *, ended: tuple[str, ...] = ()) -> Updated[R] | Unchanged[R]:
    """Let `wanted`, made from `current`, take its place; `ended` are the ids whose leases end with that."""
    found = await work.standing(wanted)
    if found is not None and found[0].id != current.id:
        raise Conflict(f"Another {kind_of(wanted)} has that name.")
    if found is not None and content(wanted) == content(current):
        return Unchanged(current, found[1])
    record = wanted.model_copy(update={"seq": work.seq, "revision": current.revision + 1})
    work.put(record)
    return Updated(record, _announce(work, PolicyAction.UPDATED, record, ended=ended))


async def delete(work: Work, record: PolicyRecord, *, action: PolicyAction = PolicyAction.DELETED) -> Receipt:
    """Delete an entity and everything that falls with it, in one commit; the receipt lists all that ended."""
    fallen = list(await work.falling(record.id, FALLING.get(kind_of(record), frozenset())))
    if isinstance(record, GrantRecord):
        fallen += await _stranded_choices(work, record)
    # All in one commit: no reader ever sees a binding whose profile is gone.
    for one in (*fallen, record):
        work.delete(one)
    # The entity first: a cut list still names what everything else rested on.
    ended = (record.id, *(one.id for one in fallen))
    receipt = _announce(work, action, record, ended=ended[:MOST_ENDED])
    return replace(receipt, ended=ended)


async def _stranded_choices(work: Work, grant: GrantRecord) -> tuple[ChoiceRecord, ...]:
    """Choices that nothing allows any more once `grant` is gone."""
    # Unverified, as all that falls: a row that somebody slipped in must not keep a grant from being taken back.
    there = await work.falling(grant.reference_id, {Kind.GRANT, Kind.CHOICE})
    here = [one for one in there if isinstance(one, GrantRecord | ChoiceRecord) and one.profile_id == grant.profile_id]
    if any(isinstance(one, GrantRecord) and one.id != grant.id for one in here):
        return ()
    return tuple(one for one in here if isinstance(one, ChoiceRecord))


def _announce(work: Work, action: PolicyAction, record: PolicyRecord, *, ended: tuple[str, ...] = ()) -> Receipt:
    return work.announce(action, kind=kind_of(record), entity_id=record.id, name=name_of(record), ended=ended)


async def addressed(work: Work, model: type[R], text: str) -> R:
    """The entity that a path names by id or name; `NotAvailable` if there is none."""
    found = await work.find(model, text)
    if found is None:
        raise NotAvailable
    return found


async def named(work: Work, model: type[R], text: str, *, place: str) -> R:
    """The entity that a body names in `place`; `BadRequest` if there is none."""
    found = await work.find(model, text)
    if found is None:
        raise BadRequest(f"There is no {_word(kind_of_model(model))} by the name or id in `{place}`.")
    return found


def _word(kind: Kind) -> str:
    return "identity provider" if kind is Kind.IDP else str(kind)
