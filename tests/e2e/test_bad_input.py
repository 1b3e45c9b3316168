"""Whatever strangers send to whichever port: a problem document with a 4xx, and nothing of the input comes back."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from services.dev.demo.stage import SERVER, Stage

MARKER = "hunter2-do-not-echo"
NOTHING = "0" * 32
SERVICES = ("sync", "policy", "resolver-1", "notifier", "audit")
PORTS = (*SERVICES, "gateway-1")
MEGABYTE = 1_000_000

BODIES: dict[str, bytes] = {
    "not JSON": MARKER.encode(),
    "invalid UTF-8": b'{"name": "\xff\xfe' + MARKER.encode() + b'"}',
    "a lone surrogate": b'{"name": "\\ud800' + MARKER.encode() + b'"}',
    "a list": json.dumps([MARKER]).encode(),
    "deep lists": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "wrong types": json.dumps({"name": [MARKER], "source": [MARKER], "server": {"a": MARKER}, "id": 1}).encode(),
    "a huge number": b'{"name": 1' + b"0" * 5_000 + b"}",
}
TOKENS = (
    MARKER,
    f"{MARKER}.{MARKER}.{MARKER}",
    "a.b.c",
    "." * 50,
    "x" * 20_000,
    "t\xf6k\xe9n",
    base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + ".e30.",
    base64.urlsafe_b64encode(b"[" * 3_000).decode() + ".e30.AA",
)
KEYS = (MARKER, "%00", "%ff", "a%0ab", "x" * 5_000, NOTHING, "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%F0%9F%94%91")
ACCEPT = {"accept": "application/json, text/event-stream"}


def operations(name: str) -> list[tuple[str, str]]:
    """Method and path of everything that a service offers, as its OpenAPI document says."""
    document: dict[str, Any] = importlib.import_module(f"services.{name.partition('-')[0]}.app").openapi()
    return [(method.upper(), path) for path, item in document["paths"].items() for method in item if method != "head"]


def at(path: str, key: str = NOTHING) -> str:
    """The path with `key` in the place of every parameter."""
    return "/".join(key if part.startswith("{") else part for part in path.split("/"))


def check(answer: httpx2.Response, what: object, *, statuses: frozenset[int] = frozenset(range(400, 500))) -> None:
    said = (what, answer.status_code, answer.text[:300])
    assert answer.status_code in statuses, said
    assert answer.headers["content-type"].split(";")[0] in {"application/problem+json", "application/json"}, said
    assert {"type", "title", "status"} <= answer.json().keys(), said
    assert answer.json()["status"] == answer.status_code, said
    assert MARKER not in answer.text, said
    assert MARKER not in str(answer.headers), said


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=20) as client:
        yield client


def admin(stage: Stage) -> dict[str, str]:
    return {"authorization": f"Bearer {stage.stack.layout.admin_token.read_text()}"}


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + token.encode("latin-1")}


def subject(stage: Stage) -> dict[str, str]:
    hospital = stage.hospitals[0]
    token = stage.stack.issuer.token("stranger", [f"staff-{hospital.profile}"], ttl_s=600)
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("name", SERVICES)
def test_bodies_that_are_no_requests(furnished: Stage, http: httpx2.Client, name: str) -> None:
    url, allowed = furnished.stack.environments.url(name), admin(furnished)
    for method, path in operations(name):
        if method not in {"POST", "PUT"}:
            continue
        for what, body in BODIES.items():
            headers = allowed | {"content-type": "application/json"}
            check(http.request(method, url + at(path), content=body, headers=headers), (method, path, what))


@pytest.mark.parametrize("name", SERVICES)
def test_a_megabyte_is_too_large_for_every_operation(furnished: Stage, http: httpx2.Client, name: str) -> None:
    url, allowed = furnished.stack.environments.url(name), admin(furnished)
    body = json.dumps({"name": MARKER + "x" * MEGABYTE}).encode()
    for method, path in operations(name):
        if method in {"POST", "PUT"}:
            check(http.request(method, url + at(path), content=body, headers=allowed), (method, path))


@pytest.mark.parametrize("name", SERVICES)
def test_tokens_that_are_none(furnished: Stage, http: httpx2.Client, name: str) -> None:
    url = furnished.stack.environments.url(name)
    for method, path in operations(name):
        for token in TOKENS:
            content = b"{}" if method in {"POST", "PUT"} else None
            answer = http.request(method, url + at(path), content=content, headers=bearer(token))
            check(answer, (method, path, token[:40]))
            assert token[:40] not in answer.text


@pytest.mark.parametrize("name", SERVICES)
def test_tokens_that_are_expired_or_for_others(furnished: Stage, http: httpx2.Client, name: str) -> None:
    url, issuer = furnished.stack.environments.url(name), furnished.stack.issuer
    groups = ["keyfob-admins"]
    tokens = (
        issuer.token("alice", groups, ttl_s=-60),
        issuer.token("alice", groups, audience="other"),
        issuer.token("alice", groups, iss="https://elsewhere.example"),
        issuer.token("alice", groups)[:-8] + "AAAAAAAA",
    )
    for method, path in operations(name):
        for token in tokens:
            content = b"{}" if method in {"POST", "PUT"} else None
            answer = http.request(method, url + at(path), content=content, headers=bearer(token))
            check(answer, (method, path))
            assert token not in answer.text


@pytest.mark.parametrize("name", SERVICES)
def test_keys_and_queries_that_name_nothing(furnished: Stage, http: httpx2.Client, name: str) -> None:
    url, allowed = furnished.stack.environments.url(name), admin(furnished)
    for method, path in operations(name):
        if method in {"POST", "PUT"} or path.endswith("who-did"):
            continue
        if "{" in path:
            for key in KEYS:
                check(http.request(method, url + at(path, key), headers=allowed), (method, path, key[:40]))
        else:
            for query in (f"limit={MARKER}", "limit=0", "limit=" + "9" * 400):
                answer = http.request(method, f"{url}{path}?{query}&reference={MARKER}", headers=allowed)
                if answer.status_code not in {200, 404}:
                    check(answer, (method, path, query[:40]))


@pytest.mark.parametrize("name", PORTS)
def test_places_and_methods_that_do_not_exist(furnished: Stage, http: httpx2.Client, name: str) -> None:
    url, allowed = furnished.stack.environments.url(name), admin(furnished)
    for path in (f"/{MARKER}", "/v1", f"/v1/{MARKER}", "/%ff", "/" + "x" * 5_000, "/../../etc/passwd"):
        check(http.get(url + path, headers=allowed), path)
    for path in ("/healthz", "/readyz"):
        check(http.post(url + path, content=MARKER.encode()), path, statuses=frozenset({405}))


@pytest.mark.parametrize("token", TOKENS)
def test_a_gateway_lets_nobody_in_without_a_real_token(furnished: Stage, http: httpx2.Client, token: str) -> None:
    headers = bearer(token) | {name.encode(): value.encode() for name, value in ACCEPT.items()}
    answer = http.post(furnished.url("gateway-1"), content=_opening(), headers=headers)
    check(answer, token[:40], statuses=frozenset({401}))


@pytest.mark.parametrize("target", ["no-such", MARKER, "%00", "%ff", "x" * 5_000, f"{SERVER}/no-such", "", "a/b/c/d"])
def test_a_gateway_knows_no_other_servers(furnished: Stage, http: httpx2.Client, target: str) -> None:
    url = f"{furnished.stack.environments.url('gateway-1')}/mcp/{target}"
    check(http.post(url, content=_opening(), headers=subject(furnished) | ACCEPT), target[:40])


@pytest.mark.parametrize("what", [*BODIES, "an empty batch", "a large body"])
def test_a_gateway_takes_only_messages(furnished: Stage, http: httpx2.Client, what: str) -> None:
    more = {"an empty batch": b"[]", "a large body": b'{"a": "' + MARKER.encode() + b"x" * 5 * MEGABYTE + b'"}'}
    answer = http.post(
        furnished.url("gateway-1"),
        content=(BODIES | more)[what],
        headers=subject(furnished) | ACCEPT | {"content-type": "application/json"},
    )
    check(answer, what)


def test_a_gateway_names_no_session_that_is_not_there(furnished: Stage, http: httpx2.Client) -> None:
    headers = subject(furnished) | ACCEPT | {"mcp-session-id": MARKER}
    for method in ("GET", "POST", "DELETE"):
        answer = http.request(method, furnished.url("gateway-1"), content=_opening(), headers=headers)
        assert 400 <= answer.status_code < 500, (method, answer.status_code, answer.text[:300])
        assert MARKER not in answer.text


def test_after_all_that_everybody_is_still_there(furnished: Stage, http: httpx2.Client) -> None:
    for name in (*SERVICES, "resolver-2", "gateway-1", "gateway-2"):
        assert http.get(furnished.stack.environments.url(name) + "/readyz").status_code == 200, name
        assert furnished.stack.supervisor.restarts(name) == 0, name
    logs = "".join(path.read_text(errors="replace") for path in furnished.stack.layout.logs.glob("*.log"))
    assert MARKER not in logs


def _opening() -> bytes:
    parameters = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "stranger", "version": "1"},
    }
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters}).encode()
