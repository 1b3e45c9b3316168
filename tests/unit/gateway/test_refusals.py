"""How the gateway says no: the same bytes for the same refusal, in a form that the one who asked can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.responses import Response

from services.gateway.client.posting import Posted
from services.gateway.client.resolving import Refused
from services.gateway.refusals import REFUSED, refusal_error, refusal_response
from shared.errors import (
    BadRequest,
    ChoiceNeeded,
    KeyfobError,
    NotAvailable,
    NotFresh,
    TokenInvalid,
    Unauthenticated,
    Unavailable,
)
from shared.problems import problem_body

MCP_CLIENT = [(b"accept", b"application/json, text/event-stream")]
ANYBODY = [(b"accept", b"*/*")]


def refused(error: KeyfobError, **headers: str) -> Refused:
    body = problem_body(error)
    return Refused(Posted(error.status, headers, body), json.loads(body))


def document(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(response.body))
    return found


@pytest.mark.parametrize("error", [NotAvailable(), TokenInvalid("expired"), ChoiceNeeded("Choose.", ("a", "b"))])
def test_a_resolvers_refusal_is_passed_on_byte_for_byte(error: KeyfobError) -> None:
    response = refusal_response(refused(error), ANYBODY)
    assert (response.status_code, bytes(response.body)) == (error.status, problem_body(error))
    assert response.media_type == "application/problem+json"


@pytest.mark.parametrize("error", [NotAvailable(), BadRequest("The body is not JSON in UTF-8."), NotFresh("fenced")])
def test_our_own_refusal_is_the_same_document(error: KeyfobError) -> None:
    assert bytes(refusal_response(error, ANYBODY).body) == problem_body(error)


def test_an_mcp_client_gets_an_error_that_it_shows_to_its_agent() -> None:
    found = document(refusal_response(refused(ChoiceNeeded("Name a context.", ("a", "b"))), MCP_CLIENT))
    assert (found["jsonrpc"], found["id"]) == ("2.0", None)
    assert (found["error"]["code"], found["error"]["message"]) == (REFUSED, "Name a context.")
    assert found["error"]["data"]["choices"] == ["a", "b"]
    assert found["status"] == 409, "and the members of the problem document are still there"


@pytest.mark.parametrize(
    ("accept", "plain"),
    [
        ([], True),
        ([b"*/*"], True),
        ([b"application/json"], True),
        ([b"text/event-stream, */*"], True),
        ([b"text/event-stream, application/problem+json"], True),
        ([b"Text/Event-Stream"], False),
        ([b"application/json", b"text/event-stream"], False),
    ],
)
def test_only_who_reads_nothing_else_gets_the_json_rpc_form(accept: list[bytes], plain: bool) -> None:  # noqa: FBT001 - a case
    response = refusal_response(NotAvailable(), [(b"accept", one) for one in accept])
    assert (response.media_type == "application/problem+json") is plain
    assert ("jsonrpc" in document(response)) is not plain


@pytest.mark.parametrize("headers", [ANYBODY, MCP_CLIENT])
def test_a_401_says_which_scheme_and_nothing_else_does(headers: list[tuple[bytes, bytes]]) -> None:
    for error in (Unauthenticated("no token"), refused(TokenInvalid("expired"))):
        assert refusal_response(error, headers).headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in refusal_response(NotAvailable(), headers).headers


def test_when_to_come_again_is_said_by_whoever_knows() -> None:
    assert refusal_response(Unavailable("full", retry_after_s=5), ANYBODY).headers["retry-after"] == "5"
    assert refusal_response(NotFresh("fenced", retry_after_s=0.2), ANYBODY).headers["retry-after"] == "1"
    assert refusal_response(refused(NotFresh(), **{"retry-after": "7"}), ANYBODY).headers["retry-after"] == "7"
    assert "retry-after" not in refusal_response(refused(NotAvailable()), ANYBODY).headers
    assert "retry-after" not in refusal_response(NotAvailable(), ANYBODY).headers


def test_inside_a_session_it_is_the_same_document_as_data() -> None:
    for refusal in (NotAvailable(), refused(NotAvailable())):
        error = refusal_error(refusal)
        assert (error.error.code, error.error.message) == (REFUSED, NotAvailable().detail)
        assert error.error.data == json.loads(problem_body(NotAvailable()))


@pytest.mark.parametrize(
    ("members", "detail", "kind"),
    [
        ({"detail": "why", "title": "what", "type": "https://x/problems/not-fresh"}, "why", "not-fresh"),
        ({"title": "what"}, "what", ""),
        ({"type": 7, "detail": None}, "Refused.", "7"),
    ],
)
def test_a_document_with_members_missing_is_still_a_refusal(members: dict[str, Any], detail: str, kind: str) -> None:
    refusal = Refused(Posted(409, {}, json.dumps(members).encode()), members)
    assert (refusal.detail, refusal.kind) == (detail, kind)
    assert refusal_error(refusal).error.data == members
