"""Windows of grants, and what a grant covers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.domain.grants import Ends, Starts, check_grant, covers, is_open, next_edge
from shared.errors import BadRequest
from shared.events.definitions import definition_digest
from shared.events.policy import GrantRecord, ServerRecord
from tests.unit.policy.stories import HTTP, NOON, STDIO

HOUR = timedelta(hours=1)


def grant(**limits: Any) -> GrantRecord:
    said = {"id": "grant/1", "seq": 1, "revision": 1, "profile_id": "profile/1", "reference_id": "reference/1"}
    return GrantRecord.model_validate(said | limits)


def server(definition: Any = STDIO, number: int = 1) -> ServerRecord:
    return ServerRecord(
        id=f"server/{number}",
        seq=1,
        revision=1,
        name="s",
        owner="",
        definition=definition,
        digest=definition_digest(definition),
    )


@pytest.mark.parametrize(
    ("limits", "after", "edge"),
    [
        ({}, NOON, None),
        ({"starts_at": NOON}, NOON, None),
        ({"starts_at": NOON}, NOON - HOUR, Starts(NOON)),
        ({"ends_at": NOON}, NOON - HOUR, Ends(NOON)),
        ({"starts_at": NOON - HOUR, "ends_at": NOON}, NOON - 2 * HOUR, Starts(NOON - HOUR)),
        ({"starts_at": NOON - HOUR, "ends_at": NOON}, NOON - HOUR, Ends(NOON)),
    ],
)
def test_what_happens_next(limits: dict[str, Any], after: datetime, edge: object) -> None:
    assert next_edge(grant(**limits), after=after) == edge


def test_the_start_belongs_to_a_window_and_the_end_does_not() -> None:
    window = grant(starts_at=NOON, ends_at=NOON + HOUR)
    assert not is_open(window, at=NOON - timedelta(microseconds=1))
    assert is_open(window, at=NOON)
    assert not is_open(window, at=NOON + HOUR)


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
def test_a_window_turns_only_at_its_edges(start: int, length: int, at: int) -> None:
    """Between two moments without an edge, nothing changes: so whoever acts on edges misses nothing."""
    one = grant(starts_at=NOON + start * HOUR, ends_at=NOON + (start + abs(length) + 1) * HOUR)
    now = NOON + at * HOUR
    edge = next_edge(one, after=now)
    if edge is not None and edge.at > now:
        just_before = edge.at - timedelta(microseconds=1)
        assert is_open(one, at=max(now, just_before)) == is_open(one, at=now)


@pytest.mark.parametrize(
    ("limits", "definition", "field", "covered"),
    [
        ({}, STDIO, "DB_URL", True),
        ({"server_id": "server/1"}, STDIO, "DB_URL", True),
        ({"server_id": "server/2"}, STDIO, "DB_URL", False),
        ({"field": "DB_URL"}, STDIO, "DB_URL", True),
        ({"field": "OTHER"}, STDIO, "DB_URL", False),
        ({"destination": "mcp.example.org"}, HTTP, "KEY", True),
        ({"destination": "elsewhere.example"}, HTTP, "KEY", False),
        ({"destination": "mcp.example.org"}, STDIO, "DB_URL", False),
    ],
)
def test_every_limit_limits(limits: dict[str, Any], definition: Any, field: str, covered: bool) -> None:  # noqa: FBT001
    assert covers(grant(**limits), server=server(definition), field=field) is covered


@pytest.mark.parametrize(
    ("limits", "definition"),
    [
        ({"ends_at": NOON}, None),
        ({"starts_at": NOON + HOUR, "ends_at": NOON + HOUR}, None),
        ({"starts_at": datetime.fromisoformat("1999-01-01T00:00:00+00:00")}, None),
        ({"ends_at": datetime.fromisoformat("9999-01-01T00:00:00+00:00")}, None),
        ({"field": "OTHER"}, STDIO),
        ({"destination": "mcp.example.org"}, STDIO),
        ({"destination": "elsewhere.example"}, HTTP),
        ({"destination": "Mcp.Example.org"}, None),
        ({"destination": "mcp.example.org:443"}, None),
        ({"destination": "https://mcp.example.org"}, None),
        ({"labels": {"a b": "x"}}, None),
        ({"labels": {"a": ""}}, None),
        ({"labels": {f"k{number}": "x" for number in range(33)}}, None),
    ],
)
def test_a_grant_that_could_never_match_is_refused(limits: dict[str, Any], definition: Any) -> None:
    named = None if definition is None else server(definition)
    with pytest.raises(BadRequest):
        check_grant(grant(**limits), server=named, now=NOON)


def test_a_grant_with_limits_that_match_passes() -> None:
    limits = {"field": "KEY", "destination": "mcp.example.org", "labels": {"env": "prod"}, "ends_at": NOON + HOUR}
    check_grant(grant(**limits), server=server(HTTP), now=NOON)
