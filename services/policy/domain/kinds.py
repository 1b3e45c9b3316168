"""The kinds of entities: their ids, what makes two of them the same, and what each rests on."""

from __future__ import annotations

import hashlib
import re
import uuid
from enum import StrEnum
from typing import Any, Final, TypeVar

import rfc8785

from shared.delivery.certificates import certified_key
from shared.events.policy import (
    BindingRecord,
    ChoiceRecord,
    EnvironmentOrigin,
    GrantRecord,
    IdpRecord,
    InstanceRecord,
    LocalValueOrigin,
    MappingRecord,
    PolicyRecord,
    ProfileRecord,
    ReferenceOrigin,
    ServerRecord,
    VariableRecord,
)

R = TypeVar("R", bound=PolicyRecord)


class Kind(StrEnum):
    """What can be created and deleted. The value is the first part of an id."""

    IDP = "idp"
    PROFILE = "profile"
    MAPPING = "mapping"
    SERVER = "server"
    GRANT = "grant"
    BINDING = "binding"
    VARIABLE = "variable"
    CHOICE = "choice"
    INSTANCE = "instance"


ENROLMENT: Final = "enrolment"
"""Not an entity of the topic: a promise to accept one instance, kept by policy alone."""

MODELS: Final[dict[Kind, type[PolicyRecord]]] = {
    Kind.IDP: IdpRecord,
    Kind.PROFILE: ProfileRecord,
    Kind.MAPPING: MappingRecord,
    Kind.SERVER: ServerRecord,
    Kind.GRANT: GrantRecord,
    Kind.BINDING: BindingRecord,
    Kind.VARIABLE: VariableRecord,
    Kind.CHOICE: ChoiceRecord,
    Kind.INSTANCE: InstanceRecord,
}
_KINDS: Final = {model: kind for kind, model in MODELS.items()}

FALLING: Final[dict[Kind, frozenset[Kind]]] = {
    Kind.IDP: frozenset({Kind.MAPPING, Kind.CHOICE}),
    Kind.PROFILE: frozenset({Kind.MAPPING, Kind.GRANT, Kind.BINDING, Kind.CHOICE}),
    Kind.SERVER: frozenset({Kind.GRANT, Kind.BINDING, Kind.CHOICE}),
}
"""What is deleted with an entity. One step is enough: nothing rests on a mapping, grant, binding or choice."""

_BOOKKEEPING: Final = {"id", "seq", "revision", "deleted"}
_LOOKS_LIKE_ID: Final = re.compile(rf"(({'|'.join((*Kind, ENROLMENT))})/)?[0-9a-f]{{32}}")


def new_id(kind: str) -> str:
    """An id that nobody had and that says nothing: `grant/` and 32 hexadecimal digits."""
    return f"{kind}/{uuid.uuid4().hex}"


def looks_like_id(text: str) -> bool:
    """Whether `text` could be taken for an id, with or without its kind."""
    return _LOOKS_LIKE_ID.fullmatch(text) is not None


def full_id(kind: str, text: str) -> str | None:
    """The id of `kind` that `text` spells, with or without its kind in front; None where it spells none."""
    if not looks_like_id(text):
        return None
    # With another kind in front it is the id of something else: a profile's is never taken for a grant's.
    return text if text.startswith(f"{kind}/") else f"{kind}/{text}" if "/" not in text else None


def kind_of_model(model: type[PolicyRecord]) -> Kind:
    """The kind that a record type belongs to."""
    return _KINDS[model]


def kind_of(record: PolicyRecord) -> Kind:
    """The kind of one record."""
    return _KINDS[type(record)]


def name_of(record: PolicyRecord) -> str:
    """What people call it; empty for what has no name."""
    match record:
        case IdpRecord() | ProfileRecord() | ServerRecord() | InstanceRecord() | VariableRecord():
            return record.name
        case _:
            return ""


def content(record: PolicyRecord) -> dict[str, Any]:
    """What an administrator said about it, without ids, revisions and moments of ours."""
    return record.model_dump(mode="json", exclude=_BOOKKEEPING)


def natural_key(record: PolicyRecord) -> str:
    """Equal for two records of a kind that can't stand side by side."""
    match record:
        case IdpRecord() | ProfileRecord() | ServerRecord() | InstanceRecord() | VariableRecord():
            return record.name
        case MappingRecord():
            return digest_of(record.idp_id, record.group, record.profile_id)
        case BindingRecord():
            return digest_of(record.profile_id, record.server_id, record.field)
        case ChoiceRecord():
            return digest_of(record.idp_id, record.subject, record.server_id, record.field, record.profile_id)
        case _:
            return digest_of(content(record))


def links(record: PolicyRecord) -> frozenset[str]:  # noqa: PLR0911 - one for each kind
    """What a record can be found by: the entities and references that it rests on, groups and issuers."""
    match record:
        case IdpRecord():
            return frozenset({issuer_link(record.issuer)})
        case MappingRecord():
            return frozenset({record.idp_id, record.profile_id, group_link(idp_id=record.idp_id, group=record.group)})
        case GrantRecord():
            server = {record.server_id} if record.server_id is not None else set()
            return frozenset({record.profile_id, record.reference_id, *server})
        case BindingRecord():
            return frozenset({record.profile_id, record.server_id, *_origin_links(record)})
        case ChoiceRecord():
            subject = subject_link(idp_id=record.idp_id, subject=record.subject)
            return frozenset({record.idp_id, subject, record.profile_id, record.server_id, record.reference_id})
        case InstanceRecord():
            return frozenset({key_link(record.signing_key or certified_key(record.certificate))})
        case _:
            return frozenset()


def _origin_links(binding: BindingRecord) -> frozenset[str]:
    match binding.origin:
        case ReferenceOrigin(reference_id=reference_id):
            return frozenset({reference_id})
        case EnvironmentOrigin(variable=variable):
            return frozenset({variable_link(variable)})
        case LocalValueOrigin():
            return frozenset()


def variable_link(variable: str) -> str:
    """What all bindings to one environment variable are found by."""
    return "environment/" + digest_of(variable)


def group_link(*, idp_id: str, group: str) -> str:
    """What all mappings of one group are found by."""
    return "group/" + digest_of(idp_id, group)


def subject_link(*, idp_id: str, subject: str) -> str:
    """What all choices of one subject are found by."""
    return "subject/" + digest_of(idp_id, subject)


def issuer_link(issuer: str) -> str:
    """What the identity provider of an issuer is found by."""
    return "issuer/" + digest_of(issuer)


def key_link(key: str) -> str:
    """What the instance with a public key is found by."""
    return "key/" + digest_of(key)


def digest_of(*parts: Any) -> str:
    """SHA-256 in hex of the RFC 8785 form of `parts`."""
    # Canonical JSON keeps parts apart: joined by hand, ("a/b", "c") and ("a", "b/c") would be one key.
    return hashlib.sha256(rfc8785.dumps(list(parts))).hexdigest()
