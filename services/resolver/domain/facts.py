"""What the resolver keeps of each record of `policy` and `catalog`: the fields that decide, and the signed bytes.

The bytes stay because signatures are verified when a fact is first used, not at start. Ids that many facts name are
interned, so that a hundred thousand grants share their few profiles (measured: below 1 KB a grant, indices included).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from shared.events import catalog, policy
from shared.events.catalog import ReferenceState
from shared.events.contract import StateRecord
from shared.events.definitions import HeaderField, HttpServer, StdioField, StdioServer


@dataclass(slots=True, eq=False)
class Evidence:
    """A record as it stood in its topic. `verdict` is the verifier's note on whether the signature holds."""

    topic: str
    type: str
    key: str
    payload: bytes
    signature: bytes | None
    key_id: str | None
    verdict: bool | None = None


@dataclass(frozen=True, slots=True)
class Idp:
    """An identity provider that subjects' tokens may come from."""

    evidence: Evidence
    id: str
    name: str
    issuer: str
    jwks_uri: str
    audience: str
    subject_claim: str
    groups_claim: str


@dataclass(frozen=True, slots=True)
class Profile:
    """What things are assigned to; `name` is what a request's context names."""

    evidence: Evidence
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """A group of an identity provider belongs to a profile."""

    evidence: Evidence
    id: str
    idp_id: str
    group: str
    profile_id: str


@dataclass(frozen=True, slots=True)
class Server:
    """A server's definition: its fields by name, and where an HTTP one sends them."""

    evidence: Evidence
    id: str
    name: str
    digest: str
    definition: StdioServer | HttpServer

    @property
    def fields(self) -> tuple[StdioField | HeaderField, ...]:
        """The credentials that it takes."""
        return self.definition.fields


@dataclass(frozen=True, slots=True)
class Grant:
    """A profile may use a reference, within limits; None and an empty `labels` are no limit."""

    evidence: Evidence
    id: str
    profile_id: str
    reference_id: str
    server_id: str | None
    field: str | None
    destination: str | None
    labels: tuple[tuple[str, str], ...]
    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class FromReference:
    """A value comes from a reference."""

    reference_id: str


@dataclass(frozen=True, slots=True)
class FromLocalValue:
    """A value was entered into Keyfob by its owner, for this server and field."""

    owner: policy.LocalOwner


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """A value is in the instance's own environment; the instance must have all of `labels`."""

    variable: str
    labels: tuple[tuple[str, str], ...]


Origin: TypeAlias = FromReference | FromLocalValue | FromEnvironment


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a field's value comes from for one profile, for exactly one definition of the server."""

    evidence: Evidence
    id: str
    profile_id: str
    server_id: str
    field: str
    origin: Origin
    definition_digest: str


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that instances with all of `labels` may read."""

    evidence: Evidence
    id: str
    name: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A subject's default among what its profiles allow."""

    evidence: Evidence
    id: str
    idp_id: str
    subject: str
    server_id: str
    field: str
    profile_id: str
    reference_id: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An enrolled gateway. Keys are base64url of 32 raw bytes, `certificate` is base64url of DER."""

    evidence: Evidence
    id: str
    name: str
    signing_key: str
    sealing_key: str
    sealing_certificate: str
    labels: frozenset[tuple[str, str]]
    allowed_servers: frozenset[str]
    active: bool
    delivery: policy.DeliveryProfile = policy.DeliveryProfile.SEALED
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A place that holds secrets."""

    evidence: Evidence
    id: str
    name: str
    place: catalog.KvSource


@dataclass(frozen=True, slots=True)
class Reference:
    """A named pointer to a value in a source, with the version that sync saw last."""

    evidence: Evidence
    id: str
    name: str
    source_id: str
    path: str
    key: str | None
    version: str
    state: ReferenceState


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that broke its contract: it replaces what its key held, and nothing may rest on it."""

    evidence: Evidence
    id: str


PolicyFact: TypeAlias = Idp | Profile | Mapping | Server | Grant | Binding | Variable | Choice | Instance | Unreadable
CatalogFact: TypeAlias = Source | Reference | Unreadable


def policy_fact(record: StateRecord, evidence: Evidence) -> PolicyFact:  # noqa: PLR0911 - one a kind
    """The fact in a record of `policy` that kept its contract; one without a meaning here is `Unreadable`."""
    match record:
        case policy.GrantRecord():
            return _grant(record, evidence)
        case policy.BindingRecord():
            return _binding(record, evidence)
        case policy.MappingRecord(id=id_, idp_id=idp, group=group, profile_id=profile):
            return Mapping(evidence, id_, sys.intern(idp), group, sys.intern(profile))
        case policy.ProfileRecord(id=id_, name=name):
            return Profile(evidence, id_, name)
        case policy.ServerRecord(id=id_, name=name, digest=digest, definition=definition):
            return Server(evidence, id_, name, digest, definition)
        case policy.IdpRecord():
            return _idp(record, evidence)
        case policy.ChoiceRecord():
            return _choice(record, evidence)
        case policy.VariableRecord(id=id_, name=name, labels=labels):
            return Variable(evidence, id_, name, tuple(sorted(labels.items())))
        case policy.InstanceRecord():
            return _instance(record, evidence)
        case _:
            return Unreadable(evidence, record.id)


def catalog_fact(record: StateRecord, evidence: Evidence) -> CatalogFact:
    """The fact in a record of `catalog` that kept its contract; one without a meaning here is `Unreadable`."""
    match record:
        case catalog.SourceRecord(id=id_, name=name, place=place):
            return Source(evidence, id_, name, place)
        case catalog.ReferenceRecord():
            return _reference(record, evidence)
        case _:
            return Unreadable(evidence, record.id)


def _idp(record: policy.IdpRecord, evidence: Evidence) -> Idp:
    return Idp(
        evidence,
        record.id,
        name=record.name,
        issuer=record.issuer,
        jwks_uri=record.jwks_uri,
        audience=record.audience,
        subject_claim=record.subject_claim,
        groups_claim=record.groups_claim,
    )


def _grant(record: policy.GrantRecord, evidence: Evidence) -> Grant:
    return Grant(
        evidence,
        record.id,
        profile_id=sys.intern(record.profile_id),
        reference_id=sys.intern(record.reference_id),
        server_id=None if record.server_id is None else sys.intern(record.server_id),
        field=None if record.field is None else sys.intern(record.field),
        destination=record.destination,
        labels=tuple(sorted(record.labels.items())),
        starts_at=record.starts_at,
        ends_at=record.ends_at,
    )


def _binding(record: policy.BindingRecord, evidence: Evidence) -> Binding:
    return Binding(
        evidence,
        record.id,
        profile_id=sys.intern(record.profile_id),
        server_id=sys.intern(record.server_id),
        field=sys.intern(record.field),
        origin=_origin(record.origin),
        definition_digest=sys.intern(record.definition_digest),
    )


def _origin(origin: policy.Origin) -> Origin:
    match origin:
        case policy.ReferenceOrigin(reference_id=reference_id):
            return FromReference(sys.intern(reference_id))
        case policy.LocalValueOrigin(owner=owner):
            return FromLocalValue(owner)
        case policy.EnvironmentOrigin(variable=variable, labels=labels):
            return FromEnvironment(sys.intern(variable), tuple(sorted(labels.items())))


def _choice(record: policy.ChoiceRecord, evidence: Evidence) -> Choice:
    return Choice(
        evidence,
        record.id,
        idp_id=sys.intern(record.idp_id),
        subject=record.subject,
        server_id=sys.intern(record.server_id),
        field=sys.intern(record.field),
        profile_id=sys.intern(record.profile_id),
        reference_id=sys.intern(record.reference_id),
    )


def _instance(record: policy.InstanceRecord, evidence: Evidence) -> Instance:
    return Instance(
        evidence,
        record.id,
        name=record.name,
        signing_key=record.signing_key,
        sealing_key=record.sealing_key,
        sealing_certificate=record.sealing_certificate,
        labels=frozenset(record.labels.items()),
        allowed_servers=frozenset(record.allowed_servers),
        active=record.state is policy.InstanceState.ACTIVE,
        delivery=record.delivery,
        certificate=record.certificate,
    )


def _reference(record: catalog.ReferenceRecord, evidence: Evidence) -> Reference:
    return Reference(
        evidence,
        record.id,
        name=record.name,
        source_id=sys.intern(record.source_id),
        path=record.path,
        key=record.key,
        version=record.version,
        state=record.state,
    )
