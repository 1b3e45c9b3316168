"""Who may enter, delete and see local values: rules on the newest picture of policy, before anything is touched.

A person has values of its own where some profile of theirs lets a field come from there, and sees, by name only, also
those of its profiles. Values of a profile are an administrator's to enter. Whatever somebody may not is answered like
what does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from services.resolver.callers import Subjects
from services.resolver.custody.value_store import Kept
from services.resolver.custody.values import Entered, LocalValues
from services.resolver.domain.chain import Chain, Refusal
from services.resolver.domain.facts import Profile, Server
from services.resolver.domain.local_values import Owner, Slot
from services.resolver.domain.plans import Person, Trusts
from services.resolver.domain.snapshot import Snapshot
from services.resolver.state import Knowledge
from shared.crypto.secret import SecretBytes
from shared.errors import NotAvailable, NotFresh
from shared.events.changes import Actor
from shared.events.policy import LocalOwner


@dataclass(frozen=True, slots=True)
class Listed:
    """A value as people see it: what it is for, whose, and when; never the value."""

    server: str
    field: str
    profile: str | None
    """The profile that owns it; None for a person's own."""
    set_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class ValueDesk:
    """Acts of people and administrators."""

    values: LocalValues
    knowledge: Knowledge
    subjects: Subjects
    trusts: Trusts

    async def person(self, token: str) -> Person:
        """Whom a token speaks for; `TokenInvalid`, or `Unavailable` when the issuer's keys can't be had."""
        subject = await self.subjects.verify(token, self._picture().policy)
        return Person(idp_id=subject.idp_id, subject=subject.subject, groups=subject.groups)

    async def enter_own(self, person: Person, server: str, field: str, value: SecretBytes) -> Entered:
        """Keep a person's own value; `NotAvailable` unless policy lets the field come from there for them."""
        try:
            slot, found = self._chain(person).own_slot(server, field)
        # Without its reason, which would tell which servers and fields there are.
        except Refusal:
            raise NotAvailable from None
        return await self.values.enter(slot, value, server_name=found.name, by=_actor(person))

    async def delete_own(self, person: Person, server: str, field: str) -> Entered:
        """Forget a person's own value, also one that policy would not let them enter any more."""
        # Not by `own_slot`: whoever lost the right to enter a value must still be able to take it back.
        slot, server_name = self._kept_slot(_self(person), server, field)
        return await self.values.delete(slot, server_name=server_name, by=_actor(person))

    async def list_own(self, person: Person) -> list[Listed]:
        """A person's own values and those of their profiles."""
        chain = self._chain(person)
        owners: dict[str, str | None] = {_self(person).text: None}
        owners |= {Owner(LocalOwner.PROFILE, one.id).text: one.name for _, one in chain.own_profiles()}
        return self._listed(await self.values.listed(list(owners)), owners, chain.snapshot)

    async def enter_for(self, profile: str, server: str, field: str, value: SecretBytes, *, by: Actor) -> Entered:
        """Keep a profile's value; `NotAvailable` unless profile, server and field exist."""
        found = self._server(server)
        slot = Slot(Owner(LocalOwner.PROFILE, self._profile(self._picture(), profile).id), found.id, field)
        if field not in {one.name for one in found.fields}:
            raise NotAvailable
        return await self.values.enter(slot, value, server_name=found.name, by=by)

    async def delete_for(self, profile: str, server: str, field: str, *, by: Actor) -> Entered:
        """Forget a profile's value; a profile that policy removed is named by its id."""
        owner = Owner(LocalOwner.PROFILE, self._profile_id(profile))
        slot, server_name = self._kept_slot(owner, server, field)
        return await self.values.delete(slot, server_name=server_name, by=by)

    async def list_for(self, profile: str) -> list[Listed]:
        """A profile's values."""
        snapshot = self._picture()
        owner = Owner(LocalOwner.PROFILE, self._profile(snapshot, profile).id).text
        return self._listed(await self.values.listed([owner]), {owner: profile}, snapshot)

    def _kept_slot(self, owner: Owner, server: str, field: str) -> tuple[Slot, str]:
        """Where `owner` may have a value, with the server's name; the server as lists call it."""
        snapshot = self._picture()
        found = self._servers(server, snapshot)
        # Whether such a server ever was shows only to whose value lies there: for all others there is none.
        server_id = found[0].id if len(found) == 1 else server
        return Slot(owner, server_id, field), self._server_name(server_id, snapshot)

    def _picture(self) -> Snapshot:
        """The newest one, which is proved to be current: nobody enters a value by rights that have ended."""
        if self.knowledge.stale() is not None:
            raise NotFresh
        return self.knowledge.snapshot()

    def _chain(self, person: Person) -> Chain:
        return Chain(self._picture(), person, datetime.now(UTC), self.trusts)

    def _server(self, name: str) -> Server:
        found = self._servers(name, self._picture())
        if len(found) != 1:
            raise NotAvailable
        return found[0]

    def _servers(self, name: str, snapshot: Snapshot) -> list[Server]:
        return [one for one in snapshot.policy.servers.get(name, ()) if self.trusts(one.evidence)]

    def _server_name(self, server_id: str, snapshot: Snapshot) -> str:
        """A server that is gone, or that its name does not tell from another, is called by its id."""
        fact = snapshot.policy.facts.get(server_id)
        return fact.name if isinstance(fact, Server) and self._servers(fact.name, snapshot) == [fact] else server_id

    def _profile(self, snapshot: Snapshot, name: str) -> Profile:
        facts = snapshot.policy.facts.values()
        named = [one for one in facts if isinstance(one, Profile) and one.name == name and self.trusts(one.evidence)]
        if len(named) != 1:
            raise NotAvailable
        return named[0]

    def _profile_id(self, name: str) -> str:
        try:
            return self._profile(self._picture(), name).id
        except NotAvailable:
            return name

    def _listed(self, found: Iterable[Kept], owners: dict[str, str | None], snapshot: Snapshot) -> list[Listed]:
        return [
            Listed(
                self._server_name(one.server_id, snapshot), one.field, owners[one.owner], one.set_at, one.last_used_at
            )
            for one in found
        ]


def _self(person: Person) -> Owner:
    return Owner(LocalOwner.SUBJECT, person.subject, person.idp_id)


def _actor(person: Person) -> Actor:
    return Actor(idp=person.idp_id, subject=person.subject)
