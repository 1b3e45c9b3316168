"""Entering, replacing, deleting and opening local values.

A value is sealed in the moment it arrives, under the key that the database calls current, in the same serial commit
that writes it and says so. Its version only ever grows, across a deletion too: a version that gateways were told is
over never comes again.

Opening takes owner, server and field from the caller's question, and only the version from the row: a row that was
put in another's place does not open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.resolver.custody.standing import Standing
from services.resolver.custody.transactions import Work, change_id
from services.resolver.custody.value_store import Kept, Use
from services.resolver.domain.local_values import Slot
from shared.crypto.secret import SecretBytes
from shared.custody import LARGEST_VALUE
from shared.errors import BadRequest, NotAvailable, TooLarge
from shared.events.changes import Actor
from shared.events.custody import ValueAction, ValueChange


@dataclass(frozen=True, slots=True)
class OpenedValue:
    """A value and its version. Whoever holds it wipes it."""

    secret: SecretBytes = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class Entered:
    """What an act came to: the event to follow, and the version that is there now."""

    event_id: str
    value_id: str
    version: int
    action: ValueAction
    at: datetime


@dataclass(frozen=True, slots=True)
class LocalValues:
    """The values of this installation, as one replica reaches them."""

    standing: Standing

    async def enter(self, slot: Slot, value: SecretBytes, *, server_name: str, by: Actor) -> Entered:
        """Seal `value`, which stays the caller's to wipe, for `slot`, replacing what is there.

        `BadRequest` for an empty one, `TooLarge` beyond 64 KiB, `Unavailable` without database or key.
        """
        _check(value)
        self.standing.check()
        async with self.standing.books.commit() as work:
            # Asked in the commit, whatever this replica remembers: a rotation can't come between this and the row.
            current = await work.store.current()
            ring = await self.standing.ring_of(current.key_id if current else "")
            before = await work.store.kept(slot.id)
            version = 1 if before is None else before.version + 1
            sealed = ring.seal(value, context=slot.context(version))
            action = ValueAction.SET if before is None or before.sealed is None else ValueAction.REPLACED
            await work.store.keep(slot, sealed, version=version, key_id=ring.current.key_id, by=by, at=work.at)
            return _said(work, slot, action, version, server_name=server_name, by=by)

    async def delete(self, slot: Slot, *, server_name: str, by: Actor) -> Entered:
        """Forget the value of `slot` at once; `NotAvailable` where there is none."""
        self.standing.check()
        async with self.standing.books.commit() as work:
            before = await work.store.kept(slot.id)
            if before is None or before.sealed is None:
                raise NotAvailable
            version = before.version + 1
            await work.store.forget(slot.id, version=version, at=work.at)
            return _said(work, slot, ValueAction.DELETED, version, server_name=server_name, by=by)

    async def open(self, slot: Slot) -> OpenedValue | None:
        """The value as it is now; None where there is none, `SealInvalid` for a row that was changed."""
        self.standing.check()
        async with self.standing.books.open() as store:
            kept = await store.kept(slot.id)
        if kept is None or kept.sealed is None:
            return None
        ring = await self.standing.ring_of(kept.key_id or "")
        return OpenedValue(ring.open(kept.sealed, context=slot.context(kept.version)), kept.version)

    async def listed(self, owners: Sequence[str]) -> list[Kept]:
        """What is there for these owners (`Owner.text`): names and times, never a value."""
        self.standing.check()
        async with self.standing.books.open() as store:
            return await store.listed(owners)

    async def note_use(self, uses: Sequence[Use], *, at: datetime) -> None:
        """These were released."""
        async with self.standing.books.open() as store:
            await store.note_use(sorted(uses), at=at)


def _check(value: SecretBytes) -> None:
    with value.reveal() as view:
        length = len(view)
    if length == 0:
        raise BadRequest("An empty value is none: delete it instead.")
    if length > LARGEST_VALUE:
        raise TooLarge(f"A value may have {LARGEST_VALUE} bytes at most.")


def _said(work: Work, slot: Slot, action: ValueAction, version: int, *, server_name: str, by: Actor) -> Entered:
    event_id, owner = change_id(), slot.owner
    work.say(
        ValueChange(
            id=event_id,
            seq=work.seq,
            action=action,
            value_id=slot.id,
            version=version,
            owner_kind=owner.kind,
            owner=owner.id,
            owner_idp=owner.idp_id or None,
            server_id=slot.server_id,
            server_name=server_name,
            field=slot.field,
            actor=by,
            at=work.at,
        )
    )
    return Entered(event_id, slot.id, version, action, work.at)
