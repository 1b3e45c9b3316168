"""What administrators and subjects send: entities by name or id, before anything is known to exist.

Wherever another entity or a reference is named, its name and its id are equally good.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared.events.contract import Name
from shared.events.definitions import Definition, FieldName
from shared.events.policy import DeliveryProfile, LocalOwner, VariableName

LONGEST_ENROLMENT_S = 86_400
"""A token that waits longer than a day is a credential lying around."""

LONGEST_URL = 2048

Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]
Text = Annotated[str, StringConstraints(max_length=2000)]


class Draft(BaseModel):
    """A body of a request; a key that nobody reads is a mistake that the caller should hear of."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IdpDraft(Draft):
    """An identity provider whose tokens subjects present."""

    name: Name
    issuer: Url
    jwks_uri: Url
    audience: Name = "keyfob"
    subject_claim: Name = "sub"
    groups_claim: Name = "groups"


class ProfileDraft(Draft):
    """What things are assigned to. Its name is the context that an agent asks for."""

    name: Name
    description: Text = ""


class MappingDraft(Draft):
    """A group of an identity provider belongs to a profile."""

    idp: Name
    group: Name
    profile: Name


class ServerDraft(Draft):
    """An MCP server."""

    name: Name
    owner: Annotated[str, StringConstraints(max_length=256)] = ""
    definition: Definition


class ServerChange(Draft):
    """A server as it should be; without a name it keeps its own."""

    name: Name | None = None
    owner: Annotated[str, StringConstraints(max_length=256)] = ""
    definition: Definition


class ProfileChange(Draft):
    """A profile as it should be; without a name it keeps its own."""

    name: Name | None = None
    description: Text = ""


class GrantDraft(Draft):
    """A profile may use a reference; what is left out does not limit it."""

    profile: Name
    reference: Name
    server: Name | None = None
    field: FieldName | None = None
    destination: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None


class EnvironmentDraft(Draft):
    """A variable of the instance's own environment, on instances that have these labels."""

    variable: VariableName
    labels: dict[str, str] = Field(default_factory=dict)


class VariableDraft(Draft):
    """An environment variable that bindings may name, on instances that have these labels."""

    name: VariableName
    labels: dict[str, str] = Field(default_factory=dict)


class BindingDraft(Draft):
    """Where a field of a server gets its value from, for one profile: exactly one of the three.

    `definition_digest`, when given, must be the server's digest of now: what was read is what is bound.
    """

    profile: Name
    server: Name
    field: FieldName
    reference: Name | None = None
    local: LocalOwner | None = None
    environment: EnvironmentDraft | None = None
    definition_digest: str | None = None


class Approval(Draft):
    """Consent to a server's definition; the digest, when given, must be the one of now."""

    definition_digest: str | None = None


class EnrolmentDraft(Draft):
    """One gateway instance that may come. `allowed_servers` are names or ids, or `*`; empty means none."""

    name: Name
    delivery: DeliveryProfile = DeliveryProfile.SEALED
    labels: dict[str, str] = Field(default_factory=dict)
    allowed_servers: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    expires_in_s: Annotated[int, Field(ge=1, le=LONGEST_ENROLMENT_S)] = 3600


class ChoiceDraft(Draft):
    """A subject's default for a field. `context` is needed where several of its profiles have the reference."""

    server: Name
    field: FieldName
    reference: Name
    context: Name | None = None
