"""What a request is for, and whose token it brings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.client.resolving import Wanted
from services.gateway.targets import token_of, wanted_of
from shared.errors import BadRequest, NotAvailable, Unauthenticated


@pytest.mark.parametrize(
    ("path", "headers", "wanted"),
    [
        (b"/mcp/patients-db", [], Wanted("patients-db")),
        (b"/mcp/patients-db/", [], Wanted("patients-db")),
        (b"/mcp/patients-db/hospital-a", [], Wanted("patients-db", "hospital-a")),
        (b"/mcp/patients-db", [(b"keyfob-context", b"hospital-a")], Wanted("patients-db", "hospital-a")),
        (b"/mcp/db/hospital-a", [(b"keyfob-context", b"hospital-a")], Wanted("db", "hospital-a")),
        (b"/mcp/a%2Fb/Sp%C3%B6%20x", [], Wanted("a/b", "Sp\u00f6 x")),
        (b"/mcp/db?x=/y", [], Wanted("db")),
        (
            b"/mcp/db",
            [(b"keyfob-choice", b"Z=a/b=c"), (b"keyfob-choice", b"A = x ")],
            Wanted("db", None, (("A", "x"), ("Z", "a/b=c"))),
        ),
    ],
)
def test_server_context_and_choices_are_read(path: bytes, headers: list[tuple[bytes, bytes]], wanted: Wanted) -> None:
    assert wanted_of(path, headers) == wanted


@pytest.mark.parametrize(
    "path", [b"/mcp", b"/mcp/", b"/mcp//x", b"/mcp/a/b/c", b"/mcp/%00", b"/mcp/%ff", b"/mcp/" + b"a" * 257]
)
def test_a_path_that_can_not_name_anything_is_absent_like_any_other(path: bytes) -> None:
    with pytest.raises(NotAvailable):
        wanted_of(path, [])


@pytest.mark.parametrize(
    "headers",
    [
        [(b"keyfob-context", b"other")],
        [(b"keyfob-context", b"\xff")],
        [(b"keyfob-context", b"")],
        [(b"keyfob-choice", b"no separator")],
        [(b"keyfob-choice", b"=x")],
        [(b"keyfob-choice", b"A=")],
        [(b"keyfob-choice", b"A=x"), (b"keyfob-choice", b"A=y")],
    ],
)
def test_headers_that_contradict_or_can_not_be_read_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest):
        wanted_of(b"/mcp/db/hospital-a", headers)


@pytest.mark.parametrize("value", [b"Bearer abc", b"bearer abc", b"BEARER  abc "])
def test_the_bearer_token_is_read(value: bytes) -> None:
    assert token_of([(b"authorization", value)]) == "abc"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Basic abc")],
        [(b"authorization", b"Bearer \xff")],
        [(b"authorization", b"Bearer " + b"a" * 20_000)],
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
    ],
)
def test_whatever_is_no_single_bearer_token_is_nobody(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthenticated):
        token_of(headers)


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
def test_nothing_else_is_ever_raised(path: bytes, context: bytes, choice: bytes) -> None:
    try:
        wanted = wanted_of(b"/mcp/" + path, [(b"keyfob-context", context), (b"keyfob-choice", choice)])
    except (NotAvailable, BadRequest):
        return
    assert wanted.server
    assert wanted.context
