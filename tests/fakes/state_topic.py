"""A small topic of state for tests: two models, and the messages that a relay would publish for a commit."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import RecordSigner, to_header
from shared.events.contract import Contract, StateRecord

STATE = "keyfob.tests-state.v1"
CHANGES = "keyfob.tests-changes.v1"


class Lamp(StateRecord):
    """One kind of entity."""

    TYPE: ClassVar[str] = "keyfob.tests.lamp.v1"
    TOPIC: ClassVar[str] = STATE

    colour: str = "white"


class Door(StateRecord):
    """Another kind of entity."""

    TYPE: ClassVar[str] = "keyfob.tests.door.v1"
    TOPIC: ClassVar[str] = STATE

    open: bool = False


class Switched(Contract):
    """An event about an entity."""

    TYPE: ClassVar[str] = "keyfob.tests.switched.v1"
    TOPIC: ClassVar[str] = CHANGES

    lamp: str


def lamp(name: str, seq: int, *, colour: str = "white", deleted: bool = False) -> Lamp:
    """A lamp after commit `seq`."""
    return Lamp(id=f"lamp/{name}", seq=seq, revision=seq, colour=colour, deleted=deleted)


def committed(*records: StateRecord, signer: RecordSigner | None = None) -> list[Message]:
    """The messages of one commit, as the relay publishes them; offsets are set by `numbered`."""
    (seq,) = {record.seq for record in records}
    return [_message(record, f"{part}/{len(records)}", signer) for part, record in enumerate(records, 1) if seq >= 0]


def numbered(messages: Iterable[Message], *, start: int = 0) -> list[Message]:
    """The messages with offsets, as if read from a topic."""
    return [replace(message, offset=offset) for offset, message in zip(itertools.count(start), messages, strict=False)]


def with_header(message: Message, name: str, value: bytes | None) -> Message:
    """The message with another header, or without it."""
    kept = tuple(pair for pair in message.headers if pair[0] != name)
    return replace(message, headers=kept if value is None else (*kept, (name, value)))


def _message(record: StateRecord, part: str, signer: RecordSigner | None) -> Message:
    payload = record.to_json()
    extensions = {"commitseq": str(record.seq), "commitpart": part, "commitid": str(uuid.UUID(int=record.seq))}
    if signer is not None:
        key_id, signature = signer(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        extensions |= {"keyid": key_id, "signature": to_header(signature)}
    return encode(
        record, key=record.id, source="keyfob/tests", event_id=str(uuid.uuid4()), extensions=extensions, payload=payload
    )
