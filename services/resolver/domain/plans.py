"""What is asked, what a decision comes to, and what it rests on: values of this service, without any rule.

A refusal carries two things: stable words for the record, and the error for the caller, who must not learn from it
whether something exists (`NotAvailable` is always the same).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Names
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from services.resolver.domain.facts import Evidence, Instance, Profile, Reference, Server, Source, Variable
from services.resolver.domain.local_values import Slot
from services.resolver.domain.snapshot import Floor
from shared.errors import KeyfobError

Trusts = Callable[[Evidence], bool]
"""Whether a record's signature was made by the service that owns its topic."""


LOCAL_VALUES: Final = "keyfob/local-values"
"""What records name as the source of a value that Keyfob keeps itself."""
LONGEST_NAME: Final = 256
"""Characters of a name in a record (`shared.events.contract.Name`)."""


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
    REFERENCE_UNKNOWN = "reference-unknown"
    REFERENCE_UNREADABLE = "reference-unreadable"
    SOURCE_UNKNOWN = "source-unknown"
    NOT_GRANTED = "not-granted"
    VARIABLE_NOT_ALLOWED = "variable-not-allowed"
    """The environment variable is not, or no longer, on policy's list of those that may be read."""
    INSTANCE_LABELS = "instance-labels"
    """The instance has not the labels that the binding, or the variable, is limited to."""


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
class StoredValue:
    """The value is in a source, where the resolver reads it."""

    reference: Reference
    source: Source

    @property
    def id(self) -> str:
        """What records and leases call it by; a notice that names it ends the lease."""
        return self.reference.id

    @property
    def name(self) -> str:
        """What people call it."""
        return self.reference.name

    @property
    def source_id(self) -> str:
        """Where it is kept."""
        return self.source.id

    @property
    def grounds(self) -> tuple[object, ...]:
        """What must be the same for a value that was read to be the answer still; its version is apart."""
        return self.source.place, self.reference.path, self.reference.key


@dataclass(frozen=True, slots=True)
class InstanceVariable:
    """The value is in the environment of the instance's own process: nobody reads it but the instance."""

    variable: Variable
    instance_id: str

    @property
    def id(self) -> str:
        """See `StoredValue`."""
        return self.variable.id

    @property
    def name(self) -> str:
        """See `StoredValue`."""
        return self.variable.name

    @property
    def source_id(self) -> str:
        """The instance: its environment is the place."""
        return self.instance_id

    @property
    def grounds(self) -> tuple[object, ...]:
        """See `StoredValue`."""
        return self.variable.name, self.instance_id


@dataclass(frozen=True, slots=True)
class KeptValue:
    """The value was entered into Keyfob by its owner, and is kept there, sealed."""

    slot: Slot
    server_name: str

    @property
    def id(self) -> str:
        """See `StoredValue`."""
        return self.slot.id

    @property
    def name(self) -> str:
        """See `StoredValue`."""
        return f"local value of the {self.slot.owner.kind}: {self.server_name}/{self.slot.field}"[:LONGEST_NAME]

    @property
    def source_id(self) -> str:
        """Keyfob itself."""
        return LOCAL_VALUES

    @property
    def grounds(self) -> tuple[object, ...]:
        """See `StoredValue`."""
        return (self.slot,)


Place: TypeAlias = StoredValue | InstanceVariable | KeptValue
"""Where a field's value is."""


class FieldRule(StrEnum):
    """Which rule said where a field's value comes from; the first that applies."""

    PICKED = "picked-in-request"
    DEFAULT = "own-default"
    BINDING = "binding"


class ContextRule(StrEnum):
    """Which rule said which of a person's profiles counts; the first that applies."""

    NAMED = "named-in-request"
    ONLY = "only-profile-that-binds"
    DEFAULT = "own-default"


@dataclass(frozen=True, slots=True)
class Item:
    """One field's answer before it is read. `ends_at` is when the grant ends, None for never."""

    field: str
    place: Place
    rests_on: tuple[str, ...]
    ends_at: datetime | None
    rule: FieldRule = FieldRule.BINDING

    @property
    def grounds(self) -> tuple[object, ...]:
        """What must be the same for a value that was read to be the answer still."""
        return self.field, self.rests_on, self.place.grounds


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
        # Ends only: what had begun when it was decided has begun still.
        return all(item.ends_at is None or now < item.ends_at for item in self.items)

    def same_grounds(self, earlier: Plan) -> bool:
        """Whether this rests on the same records as `earlier`, for the same definition and the same places."""
        # An id stays when its record changes: the definition is compared whole, since the answer carries it.
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
