"""The bodies of the resolve contract and of enrolment: what goes over HTTP between an instance and Keyfob.

Requests are strict and refuse members that they don't know: a misspelt `contxt` must not mean "no context".
Answers ignore what they don't know, so that a newer Keyfob serves an older instance.

Values are `SecretBytes` in memory and base64url text in JSON, since a secret need not be UTF-8. They are written
only by `encode_answer`; every other way of dumping an answer writes a placeholder.
"""

from __future__ import annotations

from typing import Annotated, Final, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    SerializationInfo,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from shared.crypto.framing import from_base64url, to_base64url
from shared.crypto.secret import SHOWN, SecretBytes
from shared.errors import BadRequest, TooLarge
from shared.events.contract import Id, Seq
from shared.events.policy import VariableName

LARGEST_BODY: Final = 64 * 1024
"""Bytes of a request's body."""
MOST_CHOICES: Final = 64
MOST_FIELDS: Final = 256
IN_PLACE: Final = "in-place"
"""The version of a value that only the instance can read: whatever its process was started with."""

_REVEAL: Final = "reveal"

Name = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A name that people gave; one line of text."""


def _key_text(text: str) -> str:
    from_base64url(text)
    return text


KeyText = Annotated[str, StringConstraints(min_length=43, max_length=43), AfterValidator(_key_text)]
"""32 public bytes, base64url."""
SignatureText = Annotated[str, StringConstraints(min_length=86, max_length=86), AfterValidator(_key_text)]
"""64 bytes of an Ed25519 signature, base64url."""


def _read_value(value: object) -> SecretBytes | None:
    if value is None or isinstance(value, SecretBytes):
        return value
    if not isinstance(value, str):
        message = "a value is base64url text"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns only ValueError into its own
    return SecretBytes(from_base64url(value))


def _write_value(value: SecretBytes | None, info: SerializationInfo) -> str | None:
    """Write the value for `encode_answer`, and a placeholder for everybody else."""
    if value is None:
        return None
    if not (info.context or {}).get(_REVEAL):
        return SHOWN
    with value.reveal() as view:
        return to_base64url(view)


MaybeValue = Annotated[
    SecretBytes | None,
    PlainValidator(_read_value, json_schema_input_type=str | None),
    PlainSerializer(_write_value, return_type=str | None),
    WithJsonSchema({"type": "string", "contentEncoding": "base64url"}),
]
"""A value, if there is one: bytes in memory that don't show, base64url text in JSON."""


def _read_bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        message = "bytes are base64url text"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns only ValueError into its own
    return from_base64url(value)


PublicBytes = Annotated[
    bytes,
    PlainValidator(_read_bytes, json_schema_input_type=str),
    PlainSerializer(to_base64url, return_type=str),
    WithJsonSchema({"type": "string", "contentEncoding": "base64url"}),
]
"""Bytes that may be seen: base64url text without padding in JSON, as everywhere in this protocol."""


class _Request(BaseModel):
    """The base of what instances send."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


class _Answer(BaseModel):
    """The base of what Keyfob answers, and of the parts that both use."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Floor(_Request):
    """How much of the state the instance has seen in notices: the resolver must have seen at least as much."""

    policy: Seq = 0
    catalog: Seq = 0


class ResolveRequest(_Request):
    """All fields of one server, for the subject of the presented token."""

    server: Name
    context: Name | None = None
    """The name of one of the subject's profiles. None: only if one answer is clear."""
    floor: Floor = Floor()
    choices: Annotated[dict[Name, Name], Field(max_length=MOST_CHOICES)] = Field(default_factory=dict)
    """Field name to reference name, where several references are allowed."""


class RecordPosition(_Answer):
    """The access record that this answer rests on; the instance's receipt echoes it."""

    stream: Id
    n: Seq
    hash: str


class ReachedFloor(_Answer):
    """The state that the answer was decided on; a notice beyond it that ends a lease ends these too."""

    policy: Seq
    catalog: Seq


class ContextName(_Answer):
    """The profile that was used."""

    profile_id: Id
    name: Name


class Lease(_Answer):
    """That the instance may hold one value until `expires_at`, in seconds since 1970, and on what that rests."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    id: Id
    reference_id: Id | None = None
    """What the value came from: a reference, or the record that allows an environment variable."""
    version: str
    """The source's own, or `IN_PLACE`."""
    expires_at: float
    rests_on: tuple[Id, ...]


class ResolvedField(_Answer):
    """One field of the server: its value, or the variable of the instance's own environment that holds it."""

    name: Name
    value: MaybeValue = None
    variable: VariableName | None = None
    """To be read by the instance itself, if its own settings allow it."""
    lease: Lease

    @model_validator(mode="after")
    def _has_one_of_the_two(self) -> Self:
        if (self.value is None) == (self.variable is None):
            message = "a field has either a value or a variable"
            raise ValueError(message)
        return self


class SubjectName(_Answer):
    """For whom the resolver verified the token: an instance needs no trust in tokens of its own."""

    idp_id: Id
    subject: Name


class SignedRecord(_Answer):
    """A record of a topic of state with its signature, exactly as in the topic (`shared.bus.signatures`)."""

    type: str
    payload: PublicBytes
    signature: PublicBytes
    key_id: str


class ResolveAnswer(_Answer):
    """What the sealed payload holds."""

    record: RecordPosition
    floor: ReachedFloor
    subject: SubjectName
    subject_expires_at: float
    """When the token does, in seconds since 1970: the instance knows the subject no longer than that."""
    context: ContextName
    server_id: Id
    server: SignedRecord
    """The server's record, signed by policy: an instance runs no definition that policy did not sign."""
    definition_digest: str
    """The instance refuses to start a definition with another digest."""
    fields: Annotated[list[ResolvedField], Field(max_length=MOST_FIELDS)]

    def wipe(self) -> None:
        """Overwrite every value; the answer is of no use afterwards."""
        for resolved in self.fields:
            if resolved.value is not None:
                resolved.value.wipe()


class EnrolRequest(_Request):
    """A new instance, with keys made on the spot and the single-use token that an admin gave."""

    token: SecretStr = Field(min_length=1, max_length=256)
    name: Name
    signing_key: KeyText
    sealing_key: KeyText
    sealing_key_signature: SignatureText
    """See `shared.delivery.enrolment`."""


class EnrolAnswer(_Answer):
    """What an instance keeps for its life: who it is, and the keys that it trusts."""

    instance_id: Id
    labels: dict[str, str]
    allowed_servers: tuple[str, ...]
    resolver_keys: tuple[KeyText, ...]
    """Pinned: an answer signed by another key is refused."""
    policy_key: KeyText
    notifier: str | None = None
    """Origin of the notifier, for instances that can't reach the broker."""
    bootstrap: dict[str, str] = Field(default_factory=dict)
    """Addresses by purpose (`broker`, `resolver`); no credentials."""


Body = TypeVar("Body", bound=BaseModel)


def parse_request(body: bytes, kind: type[Body]) -> Body:
    """Read a request's body; `TooLarge` or `BadRequest`, whose detail names members and never quotes them."""
    if len(body) > LARGEST_BODY:
        detail = f"The body is larger than {LARGEST_BODY} bytes."
        raise TooLarge(detail)
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        raise BadRequest(_explain(problem, kind)) from None


def _explain(problem: ValidationError, kind: type[BaseModel]) -> str:
    """Name the first thing that is wrong, in our own words only: even a member's name may be a stray secret."""
    first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
    if not first["loc"]:
        return "The body is not a JSON object."
    # Only names that the contract has: another one was made up by the caller.
    member = str(first["loc"][0])
    return f"{member}: {first['type']}" if member in kind.model_fields else "The body has an unknown member."


def encode_answer(answer: ResolveAnswer) -> bytearray:
    """Write the payload to seal, values included. The caller wipes it (`payload[:] = bytes(len(payload))`)."""
    # The text on the way can't be wiped; nothing keeps it beyond this line.
    return bytearray(answer.model_dump_json(context={_REVEAL: True}, exclude_none=True), "utf-8")


def decode_answer(payload: bytes) -> ResolveAnswer:
    """Read an opened payload; `BadRequest`, which quotes nothing, if a resolver sent something else."""
    try:
        return ResolveAnswer.model_validate_json(payload)
    except ValidationError:
        detail = "The resolver's answer is not one that this instance understands."
        raise BadRequest(detail) from None
