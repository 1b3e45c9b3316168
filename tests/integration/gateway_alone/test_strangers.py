"""Other people's sessions, bad input, and answers that tell nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from shared.errors import NotAvailable, TokenInvalid
from shared.problems import problem_body
from tests.fakes.agent_side import BODY_LIMIT, Agents, gateway
from tests.fakes.hospitals import TOKEN_A, TOKEN_B
from tests.fakes.installation import Installation, document
from tests.integration.gateway_alone.test_agents import opening

ACCEPT = {"Accept": "application/json, text/event-stream"}
PING = {"jsonrpc": "2.0", "id": 7, "method": "ping"}


async def open_session(agents: Agents, token: str) -> str:
    async with agents.client(token, **ACCEPT) as http:
        answer = await http.post("/mcp/teller", json=opening())
        assert answer.status_code == 200
        return answer.headers["mcp-session-id"]


async def send(
    agents: Agents, token: str, body: Any = PING, *, target: str = "/mcp/teller", method: str = "POST", **headers: str
) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with agents.client(token, **{"Content-Type": "application/json"}, **headers) as http:
        return await http.request(method, target, content=content)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_of_somebody_else_does_not_exist(installation: Installation, method: str) -> None:
    async with gateway(installation) as agents:
        session = await open_session(agents, TOKEN_A)
        theirs = await send(agents, TOKEN_B, method=method, **ACCEPT, **{"Mcp-Session-Id": session})
        nobodys = await send(agents, TOKEN_B, method=method, **ACCEPT, **{"Mcp-Session-Id": "0" * 32})
        assert (theirs.status_code, theirs.content) == (nobodys.status_code, nobodys.content)
        assert theirs.status_code == 404
        mine = await send(agents, TOKEN_A, **ACCEPT, **{"Mcp-Session-Id": session})
        assert mine.status_code == 200


async def test_a_newer_token_of_the_same_subject_goes_on_with_the_session(installation: Installation) -> None:
    installation.tokens["newer"] = installation.tokens[TOKEN_A]
    async with gateway(installation) as agents:
        session = await open_session(agents, TOKEN_A)
        assert (await send(agents, "newer", **ACCEPT, **{"Mcp-Session-Id": session})).status_code == 200


async def test_a_session_belongs_to_its_target(installation: Installation) -> None:
    async with gateway(installation) as agents:
        session = await open_session(agents, TOKEN_A)
        other = await send(agents, TOKEN_A, target="/mcp/teller/hospital-a", **ACCEPT, **{"Mcp-Session-Id": session})
        assert other.status_code == 404


async def test_a_session_needs_a_token_on_every_request(installation: Installation) -> None:
    async with gateway(installation) as agents:
        session = await open_session(agents, TOKEN_A)
        for method in ("POST", "GET", "DELETE"):
            answer = await send(agents, "", method=method, **ACCEPT, **{"Mcp-Session-Id": session})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_expired_token_is_asked_about_again(installation: Installation) -> None:
    installation.tokens[TOKEN_A].expires_at = 0
    async with gateway(installation) as agents:
        session = await open_session(agents, TOKEN_A)
        installation.refuse_all = TokenInvalid("The token expired.")
        answer = await send(agents, TOKEN_A, method="DELETE", **ACCEPT, **{"Mcp-Session-Id": session})
        # Its seat is still good: leases end by themselves, and no longer than the token.
        assert answer.status_code in {200, 401}


async def test_what_is_not_yours_answers_like_what_does_not_exist(installation: Installation) -> None:
    async with gateway(installation) as agents:
        for headers in ({}, ACCEPT):
            answers = [
                await send(agents, TOKEN_A, target=target, **headers)
                for target in (
                    "/mcp/no-such-server",
                    "/mcp/teller/hospital-b",
                    "/mcp/teller/no-such-context",
                    "/mcp/%00",
                    "/mcp/a/b/c/d",
                )
            ]
            assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
            assert len({answer.headers["content-type"] for answer in answers}) == 1


async def test_a_refusal_has_the_resolvers_own_bytes(installation: Installation) -> None:
    async with gateway(installation) as agents:
        answer = await send(agents, TOKEN_A, target="/mcp/no-such-server")
    assert answer.content == problem_body(NotAvailable())
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_client_that_reads_only_json_rpc_gets_the_same_document_with_an_error_in_it(
    installation: Installation,
) -> None:
    async with gateway(installation) as agents:
        answer = await send(agents, TOKEN_A, target="/mcp/no-such-server", **ACCEPT)
    found, plain = document(answer.content), document(problem_body(NotAvailable()))
    assert answer.headers["content-type"] == "application/json"
    assert found.items() >= plain.items()
    assert found["error"] == {"code": -32050, "message": NotAvailable().detail, "data": plain}


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "x" * 8000])
async def test_a_token_that_the_resolver_does_not_know_is_401(installation: Installation, token: str) -> None:
    async with gateway(installation) as agents:
        answer = await send(agents, token)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert token not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', 400),
        (b"[" * 50_000 + b"]" * 50_000, 400),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
        (json.dumps([PING]).encode(), 400),
        (json.dumps({**PING, "id": None}).encode(), 400),
        (b'"' + b"a" * (BODY_LIMIT - 2) + b'"', 400),
        (b'"' + b"a" * BODY_LIMIT + b'"', 413),
        (json.dumps({**PING, "params": "secret-of-mine"}).encode(), 400),
    ],
)
@pytest.mark.parametrize("headers", [{}, ACCEPT, {**ACCEPT, "MCP-Protocol-Version": "2026-07-28"}])
async def test_bad_bodies_are_problem_documents_that_quote_nothing(
    installation: Installation, body: bytes, status: int, headers: dict[str, str]
) -> None:
    async with gateway(installation) as agents:
        answer = await send(agents, TOKEN_A, body, **headers)
    assert answer.status_code == status
    assert document(answer.content)["status"] == status
    assert "secret-of-mine" not in answer.text
    assert installation.asked == [], "nobody was asked for a value"


@pytest.mark.parametrize("headers", [ACCEPT, {**ACCEPT, "MCP-Protocol-Version": "2026-07-28"}])
@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 5}},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
        {"jsonrpc": "2.0", "id": 1, "method": "no/such/method"},
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": []}},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    ],
)
async def test_messages_that_make_no_sense_are_never_a_fault_of_ours(
    installation: Installation, message: dict[str, Any], headers: dict[str, str]
) -> None:
    async with gateway(installation) as agents:
        session = await open_session(agents, TOKEN_A)
        for more in ({}, {"Mcp-Session-Id": session}):
            answer = await send(agents, TOKEN_A, message, **headers, **more)
            assert answer.status_code < 500
        assert (await send(agents, TOKEN_A, PING, **ACCEPT, **{"Mcp-Session-Id": session})).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_other_methods_are_refused(installation: Installation, method: str) -> None:
    async with gateway(installation) as agents:
        assert (await send(agents, TOKEN_A, method=method)).status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Keyfob-Context": "a", "X": "1"},
        {"Keyfob-Choice": "nothing"},
        {"Keyfob-Choice": "="},
    ],
)
async def test_headers_that_contradict_are_400(installation: Installation, headers: dict[str, str]) -> None:
    async with gateway(installation) as agents:
        answer = await send(agents, TOKEN_A, target="/mcp/teller/hospital-a", **headers)
        assert answer.status_code == 400
        assert document(answer.content)["status"] == 400


async def test_only_json_is_taken(installation: Installation) -> None:
    async with gateway(installation) as agents:
        async with agents.client(TOKEN_A, **ACCEPT, **{"Content-Type": "text/plain"}) as http:
            answer = await http.post("/mcp/teller", content=json.dumps(opening()))
        assert 400 <= answer.status_code < 500
