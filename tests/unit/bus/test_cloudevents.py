"""Messages are CloudEvents in binary mode; what can't be read is refused without quoting it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.cloudevents import PAYLOAD_LIMIT, Message, Unreadable, decode, encode, parse, received
from shared.events.policy import GrantRecord
from tests.fakes.state_topic import CHANGES, Door, Switched, lamp, with_header

EVENT = encode(
    Switched(lamp="lamp/a"),
    key="lamp/a",
    source="keyfob/tests",
    event_id="e-1",
    subject="lamp/a",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    extensions={"commitseq": "7"},
)


def test_attributes_travel_as_headers_and_the_payload_is_the_contract() -> None:
    assert dict(EVENT.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e-1",
        "ce_type": b"keyfob.tests.switched.v1",
        "ce_source": b"keyfob/tests",
        "ce_time": b"2026-01-02T03:04:05+00:00",
        "ce_subject": b"lamp/a",
        "ce_commitseq": b"7",
        "content-type": b"application/json",
        "traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    assert (EVENT.topic, EVENT.key, EVENT.value) == (CHANGES, "lamp/a", b'{"lamp":"lamp/a"}')


def test_what_was_encoded_is_decoded() -> None:
    assert decode(EVENT, Switched) == Switched(lamp="lamp/a")
    assert (EVENT.type, EVENT.event_id) == ("keyfob.tests.switched.v1", "e-1")


def test_unknown_fields_of_a_newer_writer_are_ignored() -> None:
    assert decode(replace(EVENT, value=b'{"lamp":"lamp/a","new":1}'), Switched) == Switched(lamp="lamp/a")


@pytest.mark.parametrize(
    "message",
    [
        with_header(EVENT, "ce_specversion", None),
        with_header(EVENT, "ce_specversion", b"0.3"),
        with_header(EVENT, "ce_type", None),
        with_header(EVENT, "ce_type", b"keyfob.tests.switched.v2"),
        with_header(EVENT, "ce_type", b"\xff"),
        replace(EVENT, value=b""),
        replace(EVENT, value=b"{"),
        replace(EVENT, value=b'{"lamp":1}'),
        replace(EVENT, value=b"\xff\xfe"),
        replace(EVENT, value=b"[" * 100_000),
        replace(EVENT, value=b'{"lamp":"' + b"x" * PAYLOAD_LIMIT + b'"}'),
    ],
)
def test_anything_else_is_unreadable(message: Message) -> None:
    with pytest.raises(Unreadable):
        decode(message, Switched)


def test_the_reason_names_fields_and_never_their_content() -> None:
    with pytest.raises(Unreadable) as caught:
        decode(replace(EVENT, value=b'{"lamp":{"hunter2":"hunter2"}}'), Switched)
    assert "lamp" in caught.value.detail
    assert "hunter2" not in caught.value.detail
    assert caught.value.__cause__ is None


def test_the_reason_is_short_however_long_the_names_are_that_it_was_given() -> None:
    members = ",".join(f'"{"k" * 10_000}{number}":1' for number in range(10))
    with pytest.raises(Unreadable) as caught:
        parse(f'{{"id":"x","labels":{{{members}}}}}'.encode(), GrantRecord)
    assert len(caught.value.detail) < 500
    assert "labels" in caught.value.detail


def test_a_message_of_one_type_is_not_read_as_another() -> None:
    record = lamp("a", 1)
    message = encode(record, key=record.id, source="keyfob/tests", event_id="e")
    with pytest.raises(Unreadable):
        decode(message, Door)


class Raw:
    """What aiokafka hands out."""

    def __init__(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self.topic, self.partition, self.offset, self.timestamp = "t", 0, 5, 1
        self.key, self.value, self.headers = key, value, headers


@given(
    st.none() | st.binary(max_size=8),
    st.none() | st.binary(max_size=8),
    st.lists(st.tuples(st.text(max_size=4), st.binary(max_size=4)), max_size=4),
)
def test_receiving_never_raises(key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    message = received(Raw(key, value, headers))
    assert message.value == (value or b"")
    assert message.key is None or message.key.encode() == key
    for name, _ in headers:
        message.header(name)


def test_a_key_that_is_not_text_is_no_key() -> None:
    assert received(Raw(b"\xff", b"", [])).key is None
