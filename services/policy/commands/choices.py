"""Choices: a subject picks, by name, one of the references that its own profiles allow for a field.

What the subject's profiles don't have is refused exactly like what doesn't exist, and is never looked up by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from services.policy.commands.outcomes import Outcome, change, create, delete
from services.policy.domain.drafts import ChoiceDraft
from services.policy.domain.grants import covers, is_open
from services.policy.domain.kinds import Kind, group_link, new_id, subject_link
from services.policy.domain.ports import Catalog, Page, Reading, Receipt, Work
from shared.errors import ChoiceNeeded, NotAvailable
from shared.events.policy import (
    BindingRecord,
    ChoiceRecord,
    GrantRecord,
    MappingRecord,
    ProfileRecord,
    ReferenceOrigin,
    ServerRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A verified subject, a person or an agent: who, and the groups that its token names."""

    idp_id: str
    subject: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class Assigned:
    """A reference's name and the names of the subject's own profiles that have it."""

    reference: str
    contexts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A choice that a subject may make."""

    server: ServerRecord
    profile: ProfileRecord
    reference_id: str


async def own_profiles(reading: Reading, person: Person) -> tuple[ProfileRecord, ...]:
    """The profiles of a subject's groups, by name."""
    found: dict[str, ProfileRecord] = {}
    # Sorted, so that the same person always reads in the same order, whatever order the token has.
    for group in sorted(person.groups):
        for mapping in await reading.linked(MappingRecord, group_link(idp_id=person.idp_id, group=group)):
            profile = await reading.get(ProfileRecord, mapping.profile_id)
            if profile is not None:
                found[profile.id] = profile
    return tuple(sorted(found.values(), key=lambda one: one.name))


async def assigned(reading: Reading, catalog: Catalog, person: Person) -> tuple[Assigned, ...]:
    """The names that a subject may use now, and nothing about any other."""
    contexts: dict[str, set[str]] = {}
    for profile in await own_profiles(reading, person):
        for grant in await reading.linked(GrantRecord, profile.id):
            reference = catalog.by_id(grant.reference_id)
            if reference is not None and is_open(grant, at=reading.now):
                contexts.setdefault(reference.name, set()).add(profile.name)
    return tuple(Assigned(name, tuple(sorted(profiles))) for name, profiles in sorted(contexts.items()))


async def chosen(reading: Reading, person: Person) -> Page[ChoiceRecord]:
    """A subject's own choices."""
    mine = await reading.linked(ChoiceRecord, subject_link(idp_id=person.idp_id, subject=person.subject))
    return Page(mine, None)


async def own_choice(reading: Reading, person: Person, text: str) -> ChoiceRecord:
    """One of the subject's own choices; anybody else's is not there."""
    record = await reading.find(ChoiceRecord, text)
    # Another's choice and none are one answer: its id must not tell that it exists.
    if record is None or (record.idp_id, record.subject) != (person.idp_id, person.subject):
        raise NotAvailable
    return record


async def forget(work: Work, person: Person, text: str) -> Receipt:
    """Take back one of the subject's own choices."""
    return await delete(work, await own_choice(work, person, text))


async def option(reading: Reading, catalog: Catalog, person: Person, draft: ChoiceDraft) -> Option:
    """What a draft can only mean for this subject; `NotAvailable` for nothing, `ChoiceNeeded` for several things."""
    server = await reading.find(ServerRecord, draft.server)
    profiles = await own_profiles(reading, person)
    # Chosen among one's own profiles: a context that exists elsewhere answers like one that doesn't.
    if draft.context is not None:
        profiles = tuple(one for one in profiles if one.name == draft.context)
    options = [] if server is None else await _options(reading, catalog, profiles, server, draft)
    if not options:
        raise NotAvailable
    if len(options) > 1:
        names = tuple(one.profile.name for one in options)
        raise ChoiceNeeded("Several of your profiles have that reference: name the context.", names)
    return options[0]


async def choose(work: Work, catalog: Catalog, person: Person, draft: ChoiceDraft) -> Outcome[ChoiceRecord]:
    """Make a reference the subject's default for a field. The last choice counts."""
    # Again, behind the lock: what was allowed a moment ago may be revoked by now.
    meant = await option(work, catalog, person, draft)
    record = ChoiceRecord(
        id=new_id(Kind.CHOICE),
        seq=work.seq,
        revision=1,
        idp_id=person.idp_id,
        subject=person.subject,
        server_id=meant.server.id,
        field=draft.field,
        profile_id=meant.profile.id,
        reference_id=meant.reference_id,
    )
    return await _put(work, record)


async def _put(work: Work, record: ChoiceRecord) -> Outcome[ChoiceRecord]:
    found = await work.standing(record)
    if found is None:
        return await create(work, record)
    current, _ = found
    return await change(work, current, current.model_copy(update={"reference_id": record.reference_id}))


async def _options(
    reading: Reading, catalog: Catalog, profiles: Iterable[ProfileRecord], server: ServerRecord, draft: ChoiceDraft
) -> list[Option]:
    """Which of the profiles have the field bound and the named reference granted for it."""
    options: list[Option] = []
    for profile in profiles:
        bindings = await reading.linked(BindingRecord, profile.id, server.id)
        # A field that an administrator let come from elsewhere is not the subject's to move.
        if not any(one.field == draft.field and isinstance(one.origin, ReferenceOrigin) for one in bindings):
            continue
        granted = [one for one in await reading.linked(GrantRecord, profile.id) if is_open(one, at=reading.now)]
        allowed = {one.reference_id for one in granted if covers(one, server=server, field=draft.field)}
        options += [Option(server, profile, one) for one in _by_name(catalog, allowed, draft.reference)]
    return options


def _by_name(catalog: Catalog, allowed: Collection[str], text: str) -> list[str]:
    # Names are compared only with what is allowed: looking one up would take longer for those that exist.
    references = filter(None, map(catalog.by_id, allowed))
    return [one.id for one in references if text in {one.name, one.id}]
