"""The chain of records that every answer hangs on, link by link; each link must be trusted or it counts as absent.

Used for decisions and for explaining them: what an administrator is told is what the rules really say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit

from services.resolver.domain.facts import (
    Binding,
    Choice,
    FromEnvironment,
    FromLocalValue,
    FromReference,
    Grant,
    Idp,
    Instance,
    Mapping,
    Profile,
    Reference,
    Server,
    Variable,
)
from services.resolver.domain.local_values import Owner, Slot
from services.resolver.domain.plans import (
    ContextRule,
    Denied,
    FieldRule,
    InstanceVariable,
    Item,
    KeptValue,
    Person,
    Reason,
    StoredValue,
    Trusts,
    Wish,
)
from services.resolver.domain.snapshot import Snapshot
from shared.errors import AssertionInvalid, ChoiceNeeded, KeyfobError, NotAvailable, TokenInvalid
from shared.events.definitions import HttpServer
from shared.events.policy import ANY_SERVER, LocalOwner


class Refusal(Exception):
    """A link is missing. Caught by `decision` and `explanation`, never further."""

    def __init__(self, reason: Reason, error: KeyfobError | None = None) -> None:
        super().__init__(reason)
        self.denied = Denied(reason, error or NotAvailable())


T = TypeVar("T", Binding, Choice, Grant, Mapping, Reference, Server, Variable)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The profile that counts, the mapping that gives it, and the rule that says so."""

    mapping: Mapping
    profile: Profile
    rule: ContextRule


@dataclass(frozen=True, slots=True)
class Grounds:
    """What all fields of one plan rest on."""

    instance: Instance
    idp: Idp
    server: Server
    chosen: Chosen

    @property
    def mapping(self) -> Mapping:
        """What gives the person the profile."""
        return self.chosen.mapping

    @property
    def profile(self) -> Profile:
        """The profile that counts."""
        return self.chosen.profile

    def ids(self, *more: str) -> tuple[str, ...]:
        """The records that every field rests on, and `more`."""
        shared = (self.idp.id, self.mapping.id, self.profile.id, self.server.id, self.instance.id)
        return shared + more


@dataclass(frozen=True, slots=True)
class Chain:
    """One question; its methods follow the steps of `decide` and raise `Refusal`."""

    snapshot: Snapshot
    person: Person
    now: datetime
    trusts: Trusts

    def grounds(self, instance_id: str, wish: Wish) -> Grounds:
        """What a whole plan rests on: everything before the first field."""
        instance = self.instance(instance_id)
        idp = self.idp()
        server = self.server(wish.server, instance)
        chosen = self.profile(wish.context, server)
        self.check_choices(wish, server)
        return Grounds(instance, idp, server, chosen)

    def _trusted(self, facts: Iterable[T]) -> tuple[T, ...]:
        return tuple(fact for fact in facts if self.trusts(fact.evidence))

    def instance(self, id_: str) -> Instance:
        """The enrolled gateway, if it may act."""
        instance = self.snapshot.policy.instance(id_)
        if instance is None or not instance.active or not self.trusts(instance.evidence):
            raise Refusal(Reason.INSTANCE_INACTIVE, AssertionInvalid())
        return instance

    def idp(self) -> Idp:
        """Who vouches for the person."""
        idp = self.snapshot.policy.idps.get(self.person.idp_id)
        if idp is None or not self.trusts(idp.evidence):
            raise Refusal(Reason.IDP_UNKNOWN, TokenInvalid())
        return idp

    def server(self, name: str, instance: Instance) -> Server:
        """The one server of that name, if it may run there and needs anything at all."""
        # Two trusted servers of one name would be policy's mistake: then nobody can say which is meant.
        match self._trusted(self.snapshot.policy.servers.get(name, ())):
            case (server,):
                pass
            case _:
                raise Refusal(Reason.SERVER_UNKNOWN)
        if not instance.allowed_servers & {server.id, ANY_SERVER}:
            raise Refusal(Reason.SERVER_NOT_ALLOWED)
        if not server.fields:
            raise Refusal(Reason.SERVER_WITHOUT_FIELDS)
        return server

    def profile(self, context: str | None, server: Server) -> Chosen:
        """The person's profile that counts.

        The one that is named; else the only one that binds the server; else the one that the person's defaults name.
        """
        own = self.own_profiles()
        if not own:
            raise Refusal(Reason.NO_PROFILE)
        if context is not None:
            named = [pair for pair in own if pair[1].name == context]
            if len(named) != 1:
                raise Refusal(Reason.CONTEXT_FOREIGN)
            return Chosen(*named[0], ContextRule.NAMED)
        # Only among those that bind it: the names that a refusal offers must all be of use.
        binding = [pair for pair in own if self._bindings(pair[1], server)]
        if len(binding) == 1:
            return Chosen(*binding[0], ContextRule.ONLY)
        match self._by_default_choice(binding, server):
            case []:
                raise Refusal(Reason.NOT_BOUND)
            case [pair]:
                return Chosen(*pair, ContextRule.DEFAULT)
            case chosen:
                names = tuple(sorted(profile.name for _, profile in chosen))
                error = ChoiceNeeded("Several contexts have this server: name one of them.", names)
                raise Refusal(Reason.CONTEXT_AMBIGUOUS, error)

    def own_profiles(self) -> list[tuple[Mapping, Profile]]:
        """The person's profiles, each with the mapping of the smallest id that gives it."""
        given: dict[str, Mapping] = {}
        for group in self.person.groups:
            for mapping in self._trusted(self.snapshot.policy.mappings.get((self.person.idp_id, group), ())):
                held = given.get(mapping.profile_id)
                # Groups are a set, whose order differs between processes: by the smallest id all replicas choose alike.
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
        """Refuse picks for fields that the server does not have."""
        if wish.choices and not wish.choices.keys() <= {field.name for field in server.fields}:
            raise Refusal(Reason.CHOICE_UNKNOWN)

    def item(self, field: str, picked: str | None, grounds: Grounds) -> Item:
        """Where a field's value comes from: the binding says, and among references the person may have picked."""
        binding = self.binding(field, grounds)
        match binding.origin:
            case FromReference(reference_id=reference_id):
                return self._stored(field, picked, binding, reference_id, grounds)
            # Picks and defaults are among references: what the administrator let come from elsewhere stays there.
            case _ if picked is not None:
                raise Refusal(Reason.CHOICE_NOT_OPEN)
            case FromEnvironment() as origin:
                return self._inherited(field, binding, origin, grounds)
            case FromLocalValue(owner=kind):
                slot = self._slot(kind, field, grounds.server, grounds.profile)
                return Item(field, KeptValue(slot, grounds.server.name), grounds.ids(binding.id, slot.id), None)

    def _slot(self, kind: LocalOwner, field: str, server: Server, profile: Profile) -> Slot:
        """Whose value it is follows from who asks and by which profile, and from nothing that a request says."""
        match kind:
            case LocalOwner.SUBJECT:
                return Slot(Owner(kind, self.person.subject, self.person.idp_id), server.id, field)
            case LocalOwner.PROFILE:
                return Slot(Owner(kind, profile.id), server.id, field)

    def own_slot(self, server_name: str, field: str) -> tuple[Slot, Server]:
        """Where the person may keep a value of its own: some profile of theirs lets the field come from there."""
        for server in self._trusted(self.snapshot.policy.servers.get(server_name, ())):
            for _, profile in self.own_profiles():
                for binding in self._bindings(profile, server):
                    if binding.field == field and binding.origin == FromLocalValue(LocalOwner.SUBJECT):
                        return self._slot(LocalOwner.SUBJECT, field, server, profile), server
        raise Refusal(Reason.NOT_BOUND)

    def _stored(self, field: str, picked: str | None, binding: Binding, bound_to: str, grounds: Grounds) -> Item:
        rule, reference, choice = self._reference(field, picked, bound_to, grounds)
        if not reference.state.readable:
            raise Refusal(Reason.REFERENCE_UNREADABLE)
        source = self.snapshot.catalog.source(reference.source_id)
        if source is None or not self.trusts(source.evidence):
            raise Refusal(Reason.SOURCE_UNKNOWN)
        grant = self._grant(field, reference, grounds)
        # A lease ends when any of these does, so whatever the answer hangs on must be named.
        own = (binding.id, grant.id, reference.id, source.id) + ((choice.id,) if choice else ())
        return Item(field, StoredValue(reference, source), grounds.ids(*own), grant.ends_at, rule)

    def _inherited(self, field: str, binding: Binding, origin: FromEnvironment, grounds: Grounds) -> Item:
        """Labels are those of the enrolment; nothing in a request can claim any."""
        match self._trusted(self.snapshot.policy.variables.get(origin.variable, ())):
            case (variable,):
                pass
            case _:
                raise Refusal(Reason.VARIABLE_NOT_ALLOWED)
        if not grounds.instance.labels.issuperset((*origin.labels, *variable.labels)):
            raise Refusal(Reason.INSTANCE_LABELS)
        place = InstanceVariable(variable, grounds.instance.id)
        return Item(field, place, grounds.ids(binding.id, variable.id), None)

    def binding(self, field: str, grounds: Grounds) -> Binding:
        """The one binding of a field, for the definition as it is now."""
        bound = [binding for binding in self._bindings(grounds.profile, grounds.server) if binding.field == field]
        if not bound:
            raise Refusal(Reason.NOT_BOUND)
        if len(bound) > 1:
            raise Refusal(Reason.BINDING_AMBIGUOUS)
        # Approved for what the server was: another command or address may take the value elsewhere.
        if bound[0].definition_digest != grounds.server.digest:
            raise Refusal(Reason.DEFINITION_CHANGED)
        return bound[0]

    def _reference(
        self, field: str, picked: str | None, bound_to: str, grounds: Grounds
    ) -> tuple[FieldRule, Reference, Choice | None]:
        """What the request picked by name, else the person's default, else what the binding says."""
        if picked is not None:
            named = self._trusted(self.snapshot.catalog.references.get(picked, ()))
            if len(named) != 1:
                raise Refusal(Reason.REFERENCE_UNKNOWN)
            return FieldRule.PICKED, named[0], None
        choice = self._default(field, grounds)
        reference = self.snapshot.catalog.reference(choice.reference_id if choice else bound_to)
        if reference is None or not self.trusts(reference.evidence):
            raise Refusal(Reason.REFERENCE_UNKNOWN)
        return FieldRule.DEFAULT if choice else FieldRule.BINDING, reference, choice

    def _default(self, field: str, grounds: Grounds) -> Choice | None:
        for choice in self._choices(grounds.server):
            if choice.field == field and choice.profile_id == grounds.profile.id:
                return choice
        return None

    def _grant(self, field: str, reference: Reference, grounds: Grounds) -> Grant:
        """The matching grant that lasts longest; of equals the one of the smallest id."""
        held = self._trusted(self.snapshot.policy.grants.get((grounds.profile.id, reference.id), ()))
        fitting = [grant for grant in held if self._fits(grant, field, grounds)]
        if not fitting:
            raise Refusal(Reason.NOT_GRANTED)
        # Both ways take the first of equals, and indices are in the order of ids.
        endless = [grant for grant in fitting if grant.ends_at is None]
        return endless[0] if endless else max(fitting, key=lambda grant: (grant.ends_at or self.now).timestamp())

    def _fits(self, grant: Grant, field: str, grounds: Grounds) -> bool:
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
