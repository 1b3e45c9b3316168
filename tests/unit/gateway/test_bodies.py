"""Which bodies may reach the MCP layers."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.bodies import DEEPEST, _deeper_than, check_message
from shared.errors import BadRequest

REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "message",
    [
        REQUEST,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "a", "result": {}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {"deep": nested(90)}}},
        {**REQUEST, "params": {"text": "[" * 1000 + '\\"' + "{" * 1000}},
    ],
)
def test_a_message_passes(message: object) -> None:
    check_message(json.dumps(message).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"42",
        b"{}",
        json.dumps([REQUEST]).encode(),
        json.dumps(REQUEST).encode() + b"\xff",
        b'{"jsonrpc":"2.0","id":1,"method":"\xff"}',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
        b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        json.dumps({**REQUEST, "params": nested(DEEPEST + 1)}).encode(),
    ],
)
def test_anything_else_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        check_message(body)
    assert "ping" not in refused.value.detail


def test_many_brackets_that_are_not_deep_pass() -> None:
    check_message(json.dumps({**REQUEST, "params": {"rows": [[1, 2, {"a": "b"}]] * 5_000}}).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=30,
)


def depth_of(value: object) -> int:
    match value:
        case dict():
            return 1 + max(map(depth_of, value.values()), default=0)
        case list():
            return 1 + max(map(depth_of, value), default=0)
        case _:
            return 0


@given(JSON, st.integers(0, 8))
def test_depth_is_measured_exactly(value: object, limit: int) -> None:
    body = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    assert _deeper_than(body, limit) == (depth_of(value) > limit)


@pytest.mark.parametrize(
    "body",
    [
        b"[]" * 101 + b'"' + b'\\"' * 20_000,
        b"[]" * 101 + b'"' * 1 + b"a" * 1_000_000,
        b"[]" * 101 + b'"' + b"\\" * 40_001,
        b"[]" * 101 + b'""' * 200_000,
    ],
    ids=["escaped quotes that never end", "one long string", "a backslash at the end", "many strings"],
)
def test_no_body_holds_up_everybody_else(body: bytes) -> None:
    """Depth is looked at before anybody knows whose request it is: what it costs may only grow with the length."""
    started = time.process_time()
    assert not _deeper_than(body, DEEPEST)
    assert time.process_time() - started < 1


@given(st.binary(max_size=40).map(lambda raw: b"[]" * 3 + raw), st.integers(0, 4))
def test_whatever_is_sent_is_deep_or_not_and_nothing_else(body: bytes, limit: int) -> None:
    assert _deeper_than(body, limit) in {True, False}
    with pytest.raises(BadRequest):
        check_message(body)
