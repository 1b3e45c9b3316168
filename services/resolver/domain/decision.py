"""Who gets what: one pure function over one snapshot, asked twice for every release.

Everything is denied unless a chain of records says otherwise: instance, identity provider, mapping, profile, server,
binding, reference, source, grant. Each link must be trusted (its signature holds) or it counts as absent. A refusal
carries two things: stable words for the record, and the error for the caller, who must not learn from it whether
something exists (`NotAvailable` is always the same).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as Names
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlsplit

from services.resolver.domain.facts import (
    Binding,
    Choice,
    Evidence,
    FromReference,
    Grant,
    Idp,
    Instance,
    Mapping,
    Profile,
    Reference,
    Server,
    Source,
)
from services.resolver.domain.snapshot import Floor, Snapshot
from shared.errors import AssertionInvalid, ChoiceNeeded, KeyfobError, NotAvailable, TokenInvalid
from shared.events.definitions import HttpServer
from shared.events.policy import ANY_SERVER

Trusts = Callable[[Evidence], bool]
"""Whether a record's signature was made by the service that owns its topic."""


class Reason(StrEnum):
    """Why a decision refused, as the record keeps it. Callers only ever see the error's kind."""

    INSTANCE_INACTIVE = "instance-inactive"
    IDP_UNKNOWN = "idp-unknown"
    SERVER_UNKNOWN = "server-unknown"
    SERVER_NOT_ALLOWED = "server-not-allowed"
    SERVER_WITHOUT_FIELDS = "server-without-fields"
    NO_PROFILE = "no-profile"
    CONTEXT_FOREIGN = "context-not-yours"
    CONTEXT_AMBIGUOUS = "context-ambiguous"
    NOT_BOUND = "not-bound"
    BINDING_AMBIGUOUS = "binding-ambiguous"
    DEFINITION_CHANGED = "definition-changed"
    CHOICE_UNKNOWN = "choice-unknown"
    CHOICE_NOT_OPEN = "choice-not-open"
    """A reference was picked for a field whose value comes from elsewhere."""
    ORIGIN_UNSUPPORTED = "origin-unsupported"
    """This resolver can't bring a value from where the binding says."""
    REFERENCE_UNKNOWN = "reference-unknown"
    REFERENCE_UNREADABLE = "reference-unreadable"
    SOURCE_UNKNOWN = "source-unknown"
    NOT_GRANTED = "not-granted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The subject of a verified token."""

    idp_id: str
    subject: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for: a server by name, in a context, with references picked by name for some fields."""

    server: str
    context: str | None
    choices: Names[str, str]


@dataclass(frozen=True, slots=True)
class Item:
    """One field's answer before it is read. `ends_at` is when the grant ends, None for never."""

    field: str
    reference: Reference
    source: Source
    rests_on: tuple[str, ...]
    ends_at: datetime | None

    @property
    def grounds(self) -> tuple[object, ...]:
        """What must be the same for a value that was read to be the answer still; its version is apart."""
        return self.field, self.rests_on, self.source.place, self.reference.path, self.reference.key


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a release rests on, as decided at `floor`."""

    floor: Floor
    instance: Instance
    server: Server
    profile: Profile
    group: str
    items: tuple[Item, ...]

    def at(self, floor: Floor) -> Plan:
        """The same plan, known to hold at `floor`."""
        return self if floor == self.floor else replace(self, floor=floor)

    def in_force(self, now: datetime) -> bool:
        """Whether no grant in it has ended by `now`. On the same facts it then is a right answer still."""
        return all(item.ends_at is None or now < item.ends_at for item in self.items)

    def same_grounds(self, earlier: Plan) -> bool:
        """Whether this rests on the same records as `earlier`, for the same definition and the same places."""
        return self.server.evidence.payload == earlier.server.evidence.payload and [
            item.grounds for item in self.items
        ] == [item.grounds for item in earlier.items]


@dataclass(frozen=True, slots=True)
class Allowed:
    """The subject may have this, here and now."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Denied:
    """The subject may not: `reason` for the record, `error` for the caller."""

    reason: Reason
    error: KeyfobError


class _Refusal(Exception):
    """Carries a `Denied` out of this module's own functions, never further."""

    def __init__(self, reason: Reason, error: KeyfobError | None = None) -> None:
        super().__init__(reason)
        self.denied = Denied(reason, error or NotAvailable())


def decide(
    snapshot: Snapshot, person: Person, instance_id: str, wish: Wish, *, now: datetime, trusts: Trusts
) -> Allowed | Denied:
    """Whether `person` on the instance gets what it wishes for at `now` (UTC), from what `snapshot` knows.

    1. The instance is active, and the token's identity provider is one of ours.
    2. The server exists, takes fields, and may run on this instance.
    3. The context is one of the person's own profiles; without one, exactly one profile binds the server.
    4. Each field is bound for this definition, to a readable reference that is granted for just this use.
    """
    case = _Case(snapshot, person, now, trusts)
    try:
        instance = case.instance(instance_id)
        idp = case.idp()
        server = case.server(wish.server, instance)
        mapping, profile = case.profile(wish.context, server)
        case.check_choices(wish, server)
        grounds = _Grounds(instance, idp, mapping, profile, server)
        items = tuple(case.item(field.name, wish.choices.get(field.name), grounds) for field in server.fields)
    except _Refusal as refusal:
        return refusal.denied
    return Allowed(Plan(snapshot.floor, instance, server, profile, mapping.group, items))


T = TypeVar("T", Binding, Choice, Grant, Mapping, Reference, Server)


@dataclass(frozen=True, slots=True)
class _Grounds:
    """What all fields of one plan rest on."""

    instance: Instance
    idp: Idp
    mapping: Mapping
    profile: Profile
    server: Server

    def ids(self, *more: str) -> tuple[str, ...]:
        shared = (self.idp.id, self.mapping.id, self.profile.id, self.server.id, self.instance.id)
        return shared + more


@dataclass(frozen=True, slots=True)
class _Case:
    """One question; its methods follow the steps of `decide` and raise `_Refusal`."""

    snapshot: Snapshot
    person: Person
    now: datetime
    trusts: Trusts

    def _trusted(self, facts: Iterable[T]) -> tuple[T, ...]:
        return tuple(fact for fact in facts if self.trusts(fact.evidence))

    def instance(self, id_: str) -> Instance:
        instance = self.snapshot.policy.instance(id_)
        if instance is None or not instance.active or not self.trusts(instance.evidence):
            raise _Refusal(Reason.INSTANCE_INACTIVE, AssertionInvalid())
        return instance

    def idp(self) -> Idp:
        idp = self.snapshot.policy.idps.get(self.person.idp_id)
        if idp is None or not self.trusts(idp.evidence):
            raise _Refusal(Reason.IDP_UNKNOWN, TokenInvalid())
        return idp

    def server(self, name: str, instance: Instance) -> Server:
        # Two trusted servers of one name would be policy's mistake: then nobody can say which is meant.
        match self._trusted(self.snapshot.policy.servers.get(name, ())):
            case (server,):
                pass
            case _:
                raise _Refusal(Reason.SERVER_UNKNOWN)
        if not instance.allowed_servers & {server.id, ANY_SERVER}:
            raise _Refusal(Reason.SERVER_NOT_ALLOWED)
        if not server.fields:
            raise _Refusal(Reason.SERVER_WITHOUT_FIELDS)
        return server

    def profile(self, context: str | None, server: Server) -> tuple[Mapping, Profile]:
        own = self._own_profiles()
        if not own:
            raise _Refusal(Reason.NO_PROFILE)
        if context is not None:
            named = [pair for pair in own if pair[1].name == context]
            if len(named) != 1:
                raise _Refusal(Reason.CONTEXT_FOREIGN)
            return named[0]
        binding = [pair for pair in own if self._bindings(pair[1], server)]
        chosen = binding if len(binding) < 2 else self._by_default_choice(binding, server)  # noqa: PLR2004
        match chosen:
            case []:
                raise _Refusal(Reason.NOT_BOUND)
            case [pair]:
                return pair
            case _:
                names = tuple(sorted(profile.name for _, profile in chosen))
                error = ChoiceNeeded("Several contexts have this server: name one of them.", names)
                raise _Refusal(Reason.CONTEXT_AMBIGUOUS, error)

    def _own_profiles(self) -> list[tuple[Mapping, Profile]]:
        """The person's profiles, each with the mapping of the smallest id that gives it."""
        given: dict[str, Mapping] = {}
        for group in self.person.groups:
            for mapping in self._trusted(self.snapshot.policy.mappings.get((self.person.idp_id, group), ())):
                held = given.get(mapping.profile_id)
                if held is None or mapping.id < held.id:
                    given[mapping.profile_id] = mapping
        found = ((mapping, self.snapshot.policy.profile(id_)) for id_, mapping in given.items())
        return [(mapping, profile) for mapping, profile in found if profile and self.trusts(profile.evidence)]

    def _bindings(self, profile: Profile, server: Server) -> tuple[Binding, ...]:
        return self._trusted(self.snapshot.policy.bindings.get((profile.id, server.id), ()))

    def _choices(self, server: Server) -> tuple[Choice, ...]:
        key = (self.person.idp_id, self.person.subject, server.id)
        return self._trusted(self.snapshot.policy.choices.get(key, ()))

    def _by_default_choice(
        self, candidates: list[tuple[Mapping, Profile]], server: Server
    ) -> list[tuple[Mapping, Profile]]:
        """The candidate that the person's own defaults name, if they name one of them and no other."""
        chosen = {choice.profile_id for choice in self._choices(server)}
        named = [pair for pair in candidates if pair[1].id in chosen]
        return named if len(named) == 1 else candidates

    def check_choices(self, wish: Wish, server: Server) -> None:
        if wish.choices and not wish.choices.keys() <= {field.name for field in server.fields}:
            raise _Refusal(Reason.CHOICE_UNKNOWN)

    def item(self, field: str, picked: str | None, grounds: _Grounds) -> Item:
        binding = self._binding(field, grounds)
        reference, choice = self._reference(field, picked, binding, grounds)
        if not reference.state.readable:
            raise _Refusal(Reason.REFERENCE_UNREADABLE)
        source = self.snapshot.catalog.source(reference.source_id)
        if source is None or not self.trusts(source.evidence):
            raise _Refusal(Reason.SOURCE_UNKNOWN)
        grant = self._grant(field, reference, grounds)
        own = (binding.id, grant.id, reference.id, source.id) + ((choice.id,) if choice else ())
        return Item(field, reference, source, grounds.ids(*own), grant.ends_at)

    def _binding(self, field: str, grounds: _Grounds) -> Binding:
        bound = [binding for binding in self._bindings(grounds.profile, grounds.server) if binding.field == field]
        if not bound:
            raise _Refusal(Reason.NOT_BOUND)
        if len(bound) > 1:
            raise _Refusal(Reason.BINDING_AMBIGUOUS)
        if bound[0].definition_digest != grounds.server.digest:
            raise _Refusal(Reason.DEFINITION_CHANGED)
        return bound[0]

    def _reference(
        self, field: str, picked: str | None, binding: Binding, grounds: _Grounds
    ) -> tuple[Reference, Choice | None]:
        """What the request picked by name, else the person's default, else what the binding says."""
        if not isinstance(binding.origin, FromReference):
            # Picks and defaults are among references: what the administrator let come from elsewhere stays there.
            raise _Refusal(Reason.ORIGIN_UNSUPPORTED if picked is None else Reason.CHOICE_NOT_OPEN)
        if picked is not None:
            named = self._trusted(self.snapshot.catalog.references.get(picked, ()))
            if len(named) != 1:
                raise _Refusal(Reason.REFERENCE_UNKNOWN)
            return named[0], None
        choice = self._default(field, grounds)
        reference = self.snapshot.catalog.reference(choice.reference_id if choice else binding.origin.reference_id)
        if reference is None or not self.trusts(reference.evidence):
            raise _Refusal(Reason.REFERENCE_UNKNOWN)
        return reference, choice

    def _default(self, field: str, grounds: _Grounds) -> Choice | None:
        for choice in self._choices(grounds.server):
            if choice.field == field and choice.profile_id == grounds.profile.id:
                return choice
        return None

    def _grant(self, field: str, reference: Reference, grounds: _Grounds) -> Grant:
        """The matching grant that lasts longest; of equals the one of the smallest id."""
        held = self._trusted(self.snapshot.policy.grants.get((grounds.profile.id, reference.id), ()))
        fitting = [grant for grant in held if self._fits(grant, field, grounds)]
        if not fitting:
            raise _Refusal(Reason.NOT_GRANTED)
        endless = [grant for grant in fitting if grant.ends_at is None]
        return endless[0] if endless else max(fitting, key=lambda grant: (grant.ends_at or self.now).timestamp())

    def _fits(self, grant: Grant, field: str, grounds: _Grounds) -> bool:
        return (
            grant.server_id in {None, grounds.server.id}
            and grant.field in {None, field}
            and (grant.destination is None or grant.destination == destination_of(grounds.server))
            and grounds.instance.labels.issuperset(grant.labels)
            and (grant.starts_at is None or grant.starts_at <= self.now)
            and (grant.ends_at is None or self.now < grant.ends_at)
        )


def destination_of(server: Server) -> str | None:
    """The host that an HTTP server's values are sent to, lower case; None for a child process."""
    if not isinstance(server.definition, HttpServer):
        return None
    return urlsplit(server.definition.url).hostname
