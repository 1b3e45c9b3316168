"""The `policy` topic: who may use what. Every record is signed by the policy service when its API accepts it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared import topics
from shared.events.contract import Id, Instant, Name, StateRecord
from shared.events.definitions import Definition, FieldName

ANY_SERVER = "*"
"""In an instance's `allowed_servers`: every server, on purpose and in writing."""

VariableName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable (POSIX.1-2024, 8.1; lower case is allowed too)."""


class PolicyRecord(StateRecord):
    """A record of the `policy` topic."""

    TOPIC: ClassVar[str] = topics.POLICY


class IdpRecord(PolicyRecord):
    """An identity provider whose access tokens subjects present (OIDC Core, RFC 9068)."""

    TYPE: ClassVar[str] = "keyfob.policy.idp.v1"

    name: Name
    issuer: str
    jwks_uri: str
    audience: str = "keyfob"
    subject_claim: str = "sub"
    groups_claim: str = "groups"


class ProfileRecord(PolicyRecord):
    """What admins assign things to; its name is also the name of the context that an agent asks for."""

    TYPE: ClassVar[str] = "keyfob.policy.profile.v1"

    name: Name
    description: str = ""


class MappingRecord(PolicyRecord):
    """A group of an identity provider belongs to a profile. Groups are keyed by (idp, id), never by a title."""

    TYPE: ClassVar[str] = "keyfob.policy.mapping.v1"

    idp_id: Id
    group: Name
    profile_id: Id


class ServerRecord(PolicyRecord):
    """An MCP server. `digest` is `definition_digest(definition)`."""

    TYPE: ClassVar[str] = "keyfob.policy.server.v1"

    name: Name
    owner: str
    definition: Definition
    digest: str


class GrantRecord(PolicyRecord):
    """A profile may use a reference, within the limits that are set; None means no such limit."""

    TYPE: ClassVar[str] = "keyfob.policy.grant.v1"

    profile_id: Id
    reference_id: Id
    server_id: Id | None = None
    field: FieldName | None = None
    destination: str | None = None
    """Host that the value may be sent to; an HTTP server elsewhere does not get it."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Every one of these must be among the instance's labels."""
    starts_at: Instant | None = None
    ends_at: Instant | None = None


class ReferenceOrigin(BaseModel):
    """A field's value comes from a reference."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["reference"] = "reference"
    reference_id: Id


class LocalOwner(StrEnum):
    """Whose local value is meant: the subject's own, or the one that the whole profile has."""

    SUBJECT = "subject"
    PROFILE = "profile"


class LocalValueOrigin(BaseModel):
    """A field's value was entered into Keyfob, for this server and field, and is kept sealed there."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["local"] = "local"
    owner: LocalOwner


class EnvironmentOrigin(BaseModel):
    """A field's value is in the environment of the instance's own process, and never leaves the instance."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["environment"] = "environment"
    variable: VariableName
    labels: dict[str, str] = Field(default_factory=dict)
    """Every one of these must be among the instance's labels, which are fixed at its enrolment."""


Origin = Annotated[ReferenceOrigin | LocalValueOrigin | EnvironmentOrigin, Field(discriminator="kind")]
"""Where a value comes from. A reader that does not know a kind can't read the binding, and gives nothing."""


class BindingRecord(PolicyRecord):
    """(profile, server, field) → where the value comes from, for exactly the pinned definition."""

    TYPE: ClassVar[str] = "keyfob.policy.binding.v1"

    profile_id: Id
    server_id: Id
    field: FieldName
    origin: Origin
    definition_digest: str


class VariableRecord(PolicyRecord):
    """An environment variable that bindings may name: without such a record no instance is told to read it.

    An instance reads only what its own settings allow as well.
    """

    TYPE: ClassVar[str] = "keyfob.policy.variable.v1"

    name: VariableName
    labels: dict[str, str] = Field(default_factory=dict)
    """Every one of these must be among the instance's labels."""


class ChoiceRecord(PolicyRecord):
    """A subject whose profiles allow several references for a field picked this one as its default."""

    TYPE: ClassVar[str] = "keyfob.policy.choice.v1"

    idp_id: Id
    subject: Name
    server_id: Id
    field: FieldName
    profile_id: Id
    reference_id: Id


class InstanceState(StrEnum):
    """Whether an enrolled instance may act."""

    ACTIVE = "active"
    BANNED = "banned"


class DeliveryProfile(StrEnum):
    """How an instance speaks with Keyfob: fixed by the admin at enrolment, never read from a request."""

    SEALED = "sealed"
    """Answers sealed to the instance and signed, notices from the topic, receipts that it signs itself."""
    HTTPS = "https"
    """Mutual TLS, answers that are not sealed, notices and receipts over HTTP."""


class InstanceRecord(PolicyRecord):
    """One enrolled gateway. Labels, servers and profile are fixed by the admin at enrolment, never read from a request.

    Keys are base64 of the 32 raw bytes (Ed25519, X25519); `sealing_certificate` is the signing key's signature
    over the sealing key. An instance of the profile `https` has none of the three, but `certificate`: base64url of
    the DER of the X.509 certificate that it, and nobody else, presents.
    """

    TYPE: ClassVar[str] = "keyfob.policy.instance.v1"

    name: Name
    delivery: DeliveryProfile = DeliveryProfile.SEALED
    signing_key: str = ""
    sealing_key: str = ""
    sealing_certificate: str = ""
    certificate: Annotated[str, StringConstraints(max_length=8192)] = ""
    labels: dict[str, str] = Field(default_factory=dict)
    allowed_servers: tuple[str, ...]
    """Server ids, or `ANY_SERVER`. Empty means none."""
    state: InstanceState = InstanceState.ACTIVE
    enrolled_at: Instant

    @model_validator(mode="after")
    def _proves_itself_in_one_way(self) -> Self:
        """Keys or a certificate: one that had both could be spoken for in the profile that it is not in."""
        keys = (self.signing_key, self.sealing_key, self.sealing_certificate)
        sealed = all(keys) and not self.certificate
        https = self.certificate and not any(keys)
        if not (sealed if self.delivery is DeliveryProfile.SEALED else https):
            message = f"an instance of the profile {self.delivery} has what that profile needs, and nothing else"
            raise ValueError(message)
        return self


class TickRecord(PolicyRecord):
    """One a second, last in order: all of policy up to `seq`, as it was at `at`. Silence is noticed by its absence.

    `digest` covers every other live record (`shared.projection.digest`), so that a record that somebody kept from
    the topic shows at the next tick. `id` is always `tick`.
    """

    TYPE: ClassVar[str] = "keyfob.policy.tick.v1"

    at: Instant
    digest: str
