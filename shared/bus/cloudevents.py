"""CloudEvents 1.0 in the binary mode of its Kafka protocol binding.

Attributes travel as headers `ce_<name>`, the payload is the JSON of one `Contract`, and the W3C trace context is
the header `traceparent`. Source: CloudEvents Kafka Protocol Binding 1.0.2, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import ValidationError

from shared.errors import Untrusted, cut
from shared.events.contract import Contract

SPEC_VERSION = b"1.0"
CONTENT_TYPE = b"application/json"
PAYLOAD_LIMIT = 512 * 1024
"""Bytes of one payload: half of a broker's default limit for a batch, so that headers always fit."""

PLACE_LIMIT = 40
"""Characters of each name in the reason why a payload is unreadable."""

_NONE: Mapping[str, str] = {}

C = TypeVar("C", bound=Contract)


class Unreadable(Untrusted):
    """Raised for a message that is not the event it should be; the detail never holds the payload."""

    kind: ClassVar[str] = "unreadable"
    title: ClassVar[str] = "A message could not be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One Kafka message; `partition`, `offset` and `timestamp_ms` are known once it was read.

    `key` is None when it is absent or not UTF-8; `value` is empty for a Kafka null.
    """

    topic: str
    key: str | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int = 0
    offset: int = -1
    timestamp_ms: int = 0

    def header(self, name: str) -> str | None:
        """The last header of that name as text, or None when it is absent or not UTF-8."""
        # The last one, as in a mapping of the headers: two readers of one message must not see two types.
        for candidate, value in reversed(self.headers):
            if candidate == name:
                return _text(value)
        return None

    @property
    def type(self) -> str | None:
        """The CloudEvents `type`, version included."""
        return self.header("ce_type")

    @property
    def event_id(self) -> str | None:
        """The CloudEvents `id`: with the source it names the event for ever."""
        return self.header("ce_id")


class RawRecord(Protocol):
    """What aiokafka hands out for one record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any


def received(record: RawRecord) -> Message:
    """The message in a record that was read from a topic; never raises."""
    return Message(
        topic=record.topic,
        key=_text(record.key),
        # A null is no deletion here: as an empty payload it is unreadable, and denies.
        value=record.value or b"",
        headers=tuple(record.headers),
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
    )


def encode(
    contract: Contract,
    *,
    key: str | None,
    source: str,
    event_id: str,
    subject: str | None = None,
    traceparent: str | None = None,
    time: datetime | None = None,
    extensions: Mapping[str, str] = _NONE,
    payload: bytes | None = None,
) -> Message:
    """The message that carries `contract` to its topic. `time` defaults to now, UTC.

    `payload` is the contract's JSON where the caller has it already, because it was signed.

    Extension names are lower-case letters and digits (CloudEvents 1.0, section 3.1).
    """
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "type": contract.TYPE,
        "source": source,
        "time": (time or datetime.now(UTC)).isoformat(),
        **({"subject": subject} if subject is not None else {}),
        **extensions,
    }
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    headers.append(("content-type", CONTENT_TYPE))
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    value = contract.to_json() if payload is None else payload
    return Message(topic=contract.TOPIC, key=key, value=value, headers=tuple(headers))


def decode(message: Message, model: type[C]) -> C:
    """The contract inside a message of exactly that type.

    Raises `Unreadable` for another spec version or type, an oversized payload or one that breaks the model.
    """
    headers = dict(message.headers)
    if headers.get("ce_specversion") != SPEC_VERSION:
        raise Unreadable("not a CloudEvent 1.0")
    if _text(headers.get("ce_type")) != model.TYPE:
        raise Unreadable(f"not a {model.TYPE}")
    return parse(message.value, model)


def parse(payload: bytes, model: type[C]) -> C:
    """The contract in a JSON payload; `Unreadable` names the fields that are wrong, never their content."""
    if len(payload) > PAYLOAD_LIMIT:
        raise Unreadable(f"payload of {len(payload)} bytes, the limit is {PAYLOAD_LIMIT}")
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        raise Unreadable(f"{model.TYPE}: {_places(error)}") from None


def _places(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    # A place may hold names that the sender made up, such as the keys of labels: those are cut.
    places = (".".join(cut(part, PLACE_LIMIT) for part in item["loc"][:6]) or "payload" for item in found[:5])
    return ", ".join(f"{place}: {item['type']}" for place, item in zip(places, found, strict=False))


def _text(raw: bytes | None) -> str | None:
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
