"""A record counts only if header, key and payload agree; anything else is unreadable, and says which part is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.cloudevents import Message, Unreadable
from shared.projection.records import CommitPart, TypedRecord, commit_part, read_record, registry
from tests.fakes.state_topic import STATE, Door, Lamp, committed, lamp, with_header

KNOWN = registry(Lamp)
GOOD = committed(lamp("a", 7, colour="red"))[0]


def read(message: Message) -> TypedRecord:
    headers = dict(message.headers)
    return read_record(message, headers, commit_part(headers), KNOWN)


def test_a_record_is_read_with_all_that_is_needed_to_verify_it_later() -> None:
    typed = read(GOOD)
    assert (typed.topic, typed.key, typed.type, typed.seq) == (STATE, "lamp/a", Lamp.TYPE, 7)
    assert (typed.record, typed.payload) == (lamp("a", 7, colour="red"), GOOD.value)
    assert (typed.signed, typed.key_id) == (None, None)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (with_header(GOOD, "ce_specversion", b"0.3"), "CloudEvent"),
        (with_header(GOOD, "ce_specversion", None), "CloudEvent"),
        (with_header(GOOD, "ce_type", Door.TYPE.encode()), "does not know"),
        (with_header(GOOD, "ce_type", None), "does not know"),
        (with_header(GOOD, "ce_type", b"\xff"), "does not know"),
        (replace(GOOD, value=b"{}"), "id: missing"),
        (replace(GOOD, value=b""), "json_invalid"),
        (replace(GOOD, key="lamp/b"), "the key"),
        (with_header(GOOD, "ce_commitseq", b"8"), "the commit"),
        (with_header(GOOD, "ce_commitseq", None), "the commit"),
        (with_header(GOOD, "ce_commitpart", b"1"), "the commit"),
    ],
)
def test_whatever_does_not_agree_is_unreadable(message: Message, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(message)


def test_of_a_header_that_comes_twice_the_last_one_counts_for_everybody() -> None:
    """`Message.header` and a mapping of the headers must agree, or a signature would cover something else."""
    twice = replace(GOOD, headers=(*GOOD.headers, ("ce_type", b"another")))
    assert twice.type == "another" == dict(twice.headers)["ce_type"].decode()
    with pytest.raises(Unreadable):
        read(twice)


@pytest.mark.parametrize(
    ("seq", "part", "expected"),
    [
        (b"7", b"1/1", CommitPart(7, last=True)),
        (b"7", b"1/2", CommitPart(7, last=False)),
        (b"7", b"2/2", CommitPart(7, last=True)),
        (b"", b"1/1", None),
        (b"x", b"1/1", None),
        (b"7", b"1", None),
        (b"7", b"1/2/3", None),
        (b"7", b"/", None),
        (b"7", b"", None),
        (b"9" * 5000, b"1/1", None),
    ],
)
def test_where_a_message_stands_in_its_commit(seq: bytes, part: bytes, expected: CommitPart | None) -> None:
    assert commit_part({"ce_commitseq": seq, "ce_commitpart": part}) == expected


@given(st.dictionaries(st.sampled_from(["ce_commitseq", "ce_commitpart", "ce_type", "ce_specversion"]), st.binary()))
def test_no_header_is_a_failure_of_ours(headers: dict[str, bytes]) -> None:
    with pytest.raises(Unreadable):
        read(replace(GOOD, headers=tuple(headers.items())))


def test_two_records_are_the_same_only_as_objects() -> None:
    """A verdict is kept on the record: an equal one from elsewhere must not inherit it."""
    assert read(GOOD) != read(GOOD)
