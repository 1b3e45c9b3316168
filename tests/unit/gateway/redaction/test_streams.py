"""Streams: any cut gives the same bytes and counts, nothing waits for long, JSON stays JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.redaction import REPLACEMENT, Redaction, Redactor, Secret
from services.gateway.redaction.searching import STRIDE, context_of, inside_escape
from shared.crypto.secret import SecretBytes
from tests.thoroughness import examples

KEY = b"tok-0123456789"


def redaction(*values: bytes) -> Redaction:
    return Redaction([Secret(f"reference/{number}", SecretBytes(value)) for number, value in enumerate(values)])


def fed(redactor: Redactor, chunks: Iterable[bytes]) -> bytes:
    return b"".join([redactor.feed(chunk) for chunk in chunks]) + redactor.finish()


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[low:high] for low, high in pairwise(edges)]


def expected(data: bytes, values: tuple[bytes, ...]) -> tuple[bytes, dict[str, int]]:
    """What comes out for values that have one way to be written: tried at every position."""
    spans = [
        (at, at + len(value), f"reference/{number}")
        for at in range(len(data))
        for number, value in enumerate(values)
        if data.startswith(value, at)
    ]
    out, end, place, counts = b"", 0, set[str](), dict[str, int]()
    for low, high, reference in sorted(spans):
        if low >= end:
            out, place = out + data[end:low] + REPLACEMENT, set()
        end = max(end, high)
        if reference not in place:
            counts[reference] = counts.get(reference, 0) + 1
            place.add(reference)
    return out + data[end:], counts


few_letters = st.lists(st.text("ab", min_size=8, max_size=11).map(str.encode), min_size=1, max_size=3, unique=True)


@given(values=few_letters, data=st.text("ab", max_size=80).map(str.encode), places=st.lists(st.integers(0, 1000)))
@settings(max_examples=examples(200), deadline=None)
def test_overlapping_values_are_one_place_however_the_stream_is_cut(
    values: list[bytes], data: bytes, places: list[int]
) -> None:
    # So that they occur, and overlap.
    data += values[0] + values[-1][3:] + data + values[-1]
    told, counts = expected(data, tuple(values))
    for streams in ("results", "stderr"):
        tried = redaction(*values)
        assert fed(getattr(tried, streams)(), cut(data, places)) == told
        assert tried.take_counts() == counts


TRICKY = redaction("p@ss wörd\\".encode(), b"w\\u00f6rdn", b"0f6rdp@ss")
LONG = redaction(KEY, b'tok-0123456789-and-more/of"it', b"\x00\x01\xff\xfe\x00\x01\xff\xfe")
LIKE_ESCAPES = redaction(b"nu00e9ab")

fragments = st.sampled_from(
    [
        "p@ss wörd\\",
        "p@ss",
        "%20",
        "+",
        "w\\u00",
        "00F6",
        "\\u00f6rd",
        "\\\\",
        '\\"',
        "rd\\\\\\\\",
        "\\",
        "n",
        "ö",
        "%C3%B6",
    ]
)


@given(parts=st.lists(fragments, max_size=25), places=st.lists(st.integers(0, 1000), max_size=12))
@settings(max_examples=examples(300), deadline=None)
def test_encoded_values_come_out_the_same_however_the_stream_is_cut(parts: list[str], places: list[int]) -> None:
    data = "".join(parts).encode()
    for streams in ("results", "stderr"):
        told, counts = fed(getattr(TRICKY, streams)(), [data]), TRICKY.take_counts()
        assert fed(getattr(TRICKY, streams)(), cut(data, places)) == told
        assert TRICKY.take_counts() == counts


@given(data=st.binary(max_size=60), places=st.lists(st.integers(0, 1000)))
@settings(max_examples=examples(250), deadline=None)
def test_at_no_time_more_waits_than_the_longest_pattern(data: bytes, places: list[int]) -> None:
    for redactor, patterns in ((LONG.results(), LONG._json), (LONG.stderr(), LONG._text)):
        for chunk in cut(KEY[:9] + data + KEY[:12] + data + KEY, places):
            redactor.feed(chunk)
            assert redactor.held < patterns.longest


def test_what_cannot_be_a_beginning_leaves_at_once() -> None:
    redactor = redaction(KEY).results()
    event = b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
    # The agent waits for the end of this event, and the next one may never come.
    assert redactor.feed(event) == event
    assert redactor.feed(b"tok") == b""
    assert redactor.held == 3
    assert redactor.feed(b"yo!") == b"tokyo!"
    assert redactor.feed(b"tok-012345678") == b""
    assert redactor.feed(b"9") == REPLACEMENT
    assert redactor.finish() == b""


def test_at_the_end_nothing_stays_behind() -> None:
    redactor = redaction(KEY).stderr()
    assert redactor.feed(b"tok-0123") == b""
    assert redactor.finish() == b"tok-0123"
    # And the next stream begins without the last one's end.
    assert redactor.finish(b"456789!\\") == b"456789!\\"
    tried = redaction(b"nowhere-to-go").results()
    assert tried.finish(b"\\") + tried.finish(b"nowhere-to-go") == b"\\" + REPLACEMENT


def test_a_longer_value_that_begins_like_a_shorter_one_is_waited_for() -> None:
    tried = redaction(KEY, KEY + b"-and-more")
    redactor = tried.results()
    assert redactor.feed(KEY) == b""
    assert redactor.feed(b"-and-mo") == b""
    assert redactor.feed(b"re!") == REPLACEMENT + b"!"
    assert tried.take_counts() == {"reference/0": 1, "reference/1": 1}
    assert fed(redactor, [KEY, b"-and-moo"]) == REPLACEMENT + b"-and-moo"


def test_neighbours_are_two_places() -> None:
    tried = redaction(KEY)
    assert tried.message(KEY + KEY) == REPLACEMENT * 2
    assert tried.take_counts() == {"reference/0": 2}


def test_a_url_counts_once_although_its_password_stands_in_it() -> None:
    tried = redaction(b"postgresql://app:long-enough@db.example/records")
    told = tried.message(b'["postgresql://app:long-enough@db.example/records", "long-enough", "app", "db.example"]')
    assert told == b'["[redacted]", "[redacted]", "app", "db.example"]'
    assert tried.take_counts() == {"reference/0": 2}


letters = st.sampled_from(["nu00e9ab", "u00e9ab", "n", "u", "\n", "\\", '"', "é", "\x0e", "0", "nu00e9a", "😀", "/"])
texts = st.lists(letters, max_size=12).map("".join)
documents = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(document=documents, ascii_only=st.booleans(), places=st.lists(st.integers(0, 1000), max_size=8))
@settings(max_examples=examples(300), deadline=None)
def test_a_json_text_stays_one_and_only_its_strings_change(
    document: Any, *, ascii_only: bool, places: list[int]
) -> None:
    """The value looks like the inside of escapes; they must neither be taken for it nor be broken."""

    def replaced(node: Any) -> Any:
        match node:
            case str():
                return expected(node.encode(), (b"nu00e9ab",))[0].decode()
            case dict():
                return {replaced(key): replaced(below) for key, below in node.items()}
            case list():
                return [replaced(below) for below in node]
        return node

    written = json.dumps(document, ensure_ascii=ascii_only).encode()
    told = fed(LIKE_ESCAPES.results(), cut(written, places))
    assert json.loads(told) == replaced(document)


@pytest.mark.parametrize("escape", [rb"\u00e9a", rb"\u00", rb"\n", b"\\", b"u00e9", b"n", rb"\u0g00"])
@pytest.mark.parametrize("backslashes", range(12))
def test_a_few_bytes_tell_as_much_about_an_escape_as_all_of_them(escape: bytes, backslashes: int) -> None:
    data = b"x" + b"\\" * backslashes + escape + escape
    for at in range(len(data) + 1):
        context = context_of(data, at)
        assert len(context) <= 6
        for more in range(len(data) - at + 1):
            assert inside_escape(context + data[at:], len(context) + more) == inside_escape(data, at + more)


@pytest.mark.parametrize(
    ("data", "at", "inside"),
    [
        (b"n", 0, False),
        (rb"\n", 1, True),
        (rb"\\n", 2, False),
        (rb"\\\n", 3, True),
        (rb"\u00e9", 2, True),
        (rb"\u00e9", 5, True),
        (rb"\u00e9x", 6, False),
        (rb"\\u00e9", 5, False),
        (rb"u00e9", 3, False),
    ],
)
def test_where_an_escape_ends(data: bytes, at: int, *, inside: bool) -> None:
    assert inside_escape(data, at) is inside


@pytest.mark.parametrize("edge", [STRIDE, STRIDE // 2, STRIDE // 4, 2 * STRIDE])
def test_a_value_is_found_wherever_the_search_is_divided(edge: int) -> None:
    tried = redaction(KEY)
    for first in range(edge - len(KEY) - 20, edge + 20):
        data = b"." * first + KEY + b"." * (STRIDE * 2 + 99 - first)
        assert REPLACEMENT in tried.message(data), first


def test_what_holds_nothing_is_not_even_copied() -> None:
    line = b'{"result": "' + b"x" * 200_000 + b'"}'
    assert redaction(KEY).message(line) is line


def test_a_line_break_in_front_is_not_the_first_letter_of_a_value() -> None:
    tried = redaction(b"nowhere-to-go")
    for line in (b'["one\\nowhere-to-go"]', b'["one\\\\\\nowhere-to-go"]'):
        assert tried.message(line) is line
    # Here it may be one, and may be a backslash in front of the value: then it is the value.
    assert tried.message(b'["one\\\\nowhere-to-go"]') == b'["one\\\\[redacted]"]'
    assert tried.text("one\\nowhere-to-go") == "one\\[redacted]"
