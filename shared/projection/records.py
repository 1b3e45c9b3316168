"""One record of a topic of state, parsed; and who vouches for it.

Parsing checks shape and agreement (key and id, header and payload). Signatures are verified when a record is first
used, not when it is read: a million of them would take a minute at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.bus.cloudevents import SPEC_VERSION, Message, Unreadable, parse
from shared.bus.signatures import from_header, record_verifies
from shared.crypto.signing import VerifyKey
from shared.events.contract import StateRecord

Registry = Mapping[str, type[StateRecord]]
"""CloudEvents type → model. A type that is not in it is unreadable, and denies."""


def registry(*models: type[StateRecord]) -> dict[str, type[StateRecord]]:
    """The registry of these models by their types."""
    return {model.TYPE: model for model in models}


@dataclass(frozen=True, slots=True, eq=False)
class TypedRecord:
    """A record with everything that is needed to verify it later. Compared by identity."""

    topic: str
    key: str
    type: str
    seq: int
    record: StateRecord
    payload: bytes
    signed: str | None
    """The signature as the header has it: decoded at first use."""

    key_id: str | None
    _verdict: tuple[Authority, bool] | None = field(default=None, init=False, repr=False)


class Authority:
    """The keys whose records count. Unknown key, no signature, wrong signature: not verified."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[str, VerifyKey]) -> None:
        self._keys = dict(keys)

    def verified(self, typed: TypedRecord) -> bool:
        """Whether one of the keys signed this record. The verdict is kept on the record, for this authority only."""
        verdict = typed._verdict  # noqa: SLF001 - the cache is this class's own
        if verdict is not None and verdict[0] is self:
            return verdict[1]
        holds = self._verify(typed)
        object.__setattr__(typed, "_verdict", (self, holds))
        return holds

    def _verify(self, typed: TypedRecord) -> bool:
        key = None if typed.key_id is None else self._keys.get(typed.key_id)
        signature = from_header(typed.signed)
        if key is None or signature is None:
            return False
        return record_verifies(
            key, signature, topic=typed.topic, type_=typed.type, key=typed.key, payload=typed.payload
        )


@dataclass(frozen=True, slots=True)
class CommitPart:
    """Which commit a message belongs to, and whether it is its last one in this topic."""

    seq: int
    last: bool


def read_record(
    message: Message, headers: Mapping[str, bytes], part: CommitPart | None, known: Registry
) -> TypedRecord:
    """The record in a message; `Unreadable` for anything that is not exactly what a writer of ours sends."""
    if headers.get("ce_specversion") != SPEC_VERSION:
        raise Unreadable("not a CloudEvent 1.0")
    type_ = headers.get("ce_type", b"").decode(errors="replace")
    model = known.get(type_)
    if model is None:
        raise Unreadable("a type that this reader does not know")
    record = parse(message.value, model)
    if record.id != message.key:
        raise Unreadable("the key is not the record's id")
    if part is None or record.seq != part.seq:
        raise Unreadable("the commit in the header is not the record's")
    return TypedRecord(
        topic=message.topic,
        key=record.id,
        type=type_,
        seq=record.seq,
        record=record,
        payload=message.value,
        signed=_text(headers.get("ce_signature")),
        key_id=_text(headers.get("ce_keyid")),
    )


def commit_part(headers: Mapping[str, bytes]) -> CommitPart | None:
    """Where in its commit a message stands, or None when its headers don't say so."""
    try:
        number, total = headers["ce_commitpart"].split(b"/")
        return CommitPart(int(headers["ce_commitseq"]), int(number) == int(total))
    except (KeyError, ValueError):
        return None


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode(errors="replace")
