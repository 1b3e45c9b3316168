"""Which aborted transactions a client may believe, and how seldom an idle one asks."""

from __future__ import annotations

import struct
from typing import Any

from aiokafka.protocol.fetch import FetchRequest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.consumer import mended, still_aborted

DATA, COMMIT, ABORT = "data", "commit", "abort"
TRANSACTIONAL, CONTROL = 0x10, 0x20


def varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value & ~0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batch(offset: int, producer: int, kind: str) -> bytes:
    """One record batch v2 with one record (Kafka protocol guide, "Record Batch"); its checksum is left out."""
    key = b"k" if kind == DATA else struct.pack(">hh", 0, 1 if kind == COMMIT else 0)
    value = b"v" if kind == DATA else struct.pack(">hi", 0, 0)
    body = b"\x00" + varint(0) + varint(0) + varint(len(key)) + key + varint(len(value)) + value + varint(0)
    record = varint(len(body)) + body
    attributes = TRANSACTIONAL | (0 if kind == DATA else CONTROL)
    rest = struct.pack(">hiqqqhii", attributes, 0, 0, 0, producer, 0, -1 if kind != DATA else 0, 1) + record
    return struct.pack(">qiibI", offset, 4 + 1 + 4 + len(rest), 0, 2, 0) + rest


def records(start: int, *kinds: tuple[int, str]) -> bytes:
    return b"".join(batch(start + at, producer, kind) for at, (producer, kind) in enumerate(kinds))


def test_an_entry_that_ended_before_the_range_is_dropped() -> None:
    assert still_aborted([(7, 0)], records(5, (7, DATA), (7, COMMIT)), fetched_from=5) == []


def test_an_entry_that_reaches_into_the_range_is_kept() -> None:
    assert still_aborted([(7, 0)], records(5, (7, DATA), (7, ABORT), (7, DATA), (7, COMMIT)), fetched_from=5) == [
        (7, 0)
    ]


def test_an_entry_that_begins_in_the_range_is_kept() -> None:
    found = records(5, (7, DATA), (7, COMMIT), (7, DATA), (7, ABORT))
    assert still_aborted([(7, 7)], found, fetched_from=5) == [(7, 7)]
    assert still_aborted([(7, 0), (7, 7)], found, fetched_from=5) == [(7, 7)]


def test_an_entry_is_kept_while_no_marker_tells_how_it_ended() -> None:
    assert still_aborted([(7, 0)], records(5, (7, DATA)), fetched_from=5) == [(7, 0)]


def test_markers_of_others_say_nothing() -> None:
    found = records(5, (8, DATA), (8, COMMIT), (7, DATA))
    assert still_aborted([(7, 0)], found, fetched_from=5) == [(7, 0)]


history = st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from([DATA, DATA, COMMIT, ABORT])), max_size=12)


@given(history, st.integers(0, 11), st.integers(1, 12))
def test_what_apache_lists_is_never_changed(log: list[tuple[int, str]], start: int, length: int) -> None:
    """Kafka lists a transaction when its abort marker is not before the range and its first record not behind it."""
    open_since: dict[int, int] = {}
    aborted: list[tuple[int, int, int]] = []
    for offset, (producer, kind) in enumerate(log):
        if kind == DATA:
            open_since.setdefault(producer, offset)
        elif (first := open_since.pop(producer, None)) is not None and kind == ABORT:
            aborted.append((producer, first, offset))
    found = log[start : start + length]
    listed = [(producer, first) for producer, first, marker in aborted if marker >= start and first < start + length]
    assert still_aborted(list(listed), records(start, *found), fetched_from=start) == listed


class Answer:
    """An answer to a fetch of version 11."""

    API_VERSION = 11

    def __init__(self, records: bytes, aborted: list[Any] | None = None, error: int = 0) -> None:
        self.topics = [("t", [(0, error, 9, 9, 0, aborted, -1, records)])]


async def test_answers_are_mended_on_their_way() -> None:
    aborted = [(7, 0)]

    async def send(*_: Any, **__: Any) -> Answer:
        return Answer(records(5, (7, DATA), (7, COMMIT)), aborted)

    await mended(send)(1, FetchRequest(500, 1, 1, 1, [("t", [(0, 5, 1)])]))
    assert aborted == []


async def test_other_requests_pass_untouched() -> None:
    async def send(*_: Any, **__: Any) -> str:
        return "answer"

    assert await mended(send)(1, object()) == "answer"


async def test_early_empty_answers_are_delayed_more_and_more_and_news_is_not(monkeypatch: Any) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("shared.bus.consumer.asyncio.sleep", sleep)
    found = b""

    async def send(*_: Any, **__: Any) -> Answer:
        return Answer(found)

    ask = mended(send)
    request = FetchRequest(500, 1, 1, 1, [("t", [(0, 5, 1)])])
    for _ in range(12):
        await ask(1, request)
    assert slept == sorted(slept)
    assert (slept[0], slept[-1]) == (0.001, 0.015)
    found = records(5, (7, DATA))
    await ask(1, request)
    assert len(slept) == 12
    found = b""
    await ask(1, request)
    assert slept[-1] == 0.001
