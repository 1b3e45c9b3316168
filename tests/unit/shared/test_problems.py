"""Whatever goes wrong becomes a problem document that says where and why, and repeats nothing of the input."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from shared.errors import (
    BadRequest,
    ChoiceNeeded,
    Conflict,
    Forbidden,
    KeyfobError,
    NotAvailable,
    NotFresh,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from shared.health import Readiness
from shared.problems import BODY_LIMIT, MEDIA_TYPE, BodyLimit, problem_body, problem_response
from shared.serving import application
from tests.fakes.asgi import Reply, call, nothing_there

CANARY = "hunter2-canary"
JSON = [("content-type", "application/json")]


class Draft(BaseModel):
    """A body as the admin APIs take them, with a member that nothing constrains."""

    model_config = ConfigDict(extra="forbid")

    name: str
    count: int = 0
    labels: dict[str, str] = Field(default_factory=dict)


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    yield


@pytest.fixture
def app() -> FastAPI:
    app = application("tests", lifespan=lifespan, readiness=Readiness())

    @app.post("/drafts")
    async def take(draft: Draft) -> dict[str, int]:
        return {"members": len(draft.model_fields_set)}

    @app.get("/numbers/{number}")
    async def look(number: int, word: Annotated[str, Query(max_length=3)] = "") -> dict[str, int]:
        return {"number": number + len(word)}

    return app


def document(reply: Reply) -> dict[str, Any]:
    assert reply.headers["content-type"] == MEDIA_TYPE
    found: dict[str, Any] = json.loads(reply.body)
    assert found["status"] == reply.status
    return found


async def refused(app: FastAPI, body: bytes) -> dict[str, Any]:
    reply = await call(app, "POST", "/drafts", headers=JSON, body=body)
    assert CANARY.encode() not in reply.body
    return document(reply)


async def test_a_good_request_is_served(app: FastAPI) -> None:
    reply = await call(app, "POST", "/drafts", headers=JSON, body=b'{"name":"x","count":1}')
    assert (reply.status, json.loads(reply.body)) == (200, {"members": 2})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"count": 1}, "body.name (missing)"),
        ({"name": [CANARY]}, "body.name (string_type)"),
        ({"name": "x", "count": CANARY}, "body.count (int_parsing)"),
        ({"name": "x", "labels": {"a": [CANARY]}}, "body.labels.a (string_type)"),
        ({"name": "x", "passwrod": CANARY}, "body.passwrod (extra_forbidden)"),
        ([CANARY], "body (model_attributes_type)"),
        (CANARY, "body (model_attributes_type)"),
    ],
)
async def test_a_wrong_body_is_answered_by_place_and_kind_of_its_mistakes(
    app: FastAPI, body: object, where: str
) -> None:
    found = await refused(app, json.dumps(body).encode())
    assert (found["status"], found["type"]) == (400, "https://keyfob.dev/problems/bad-request")
    assert where in found["detail"]


async def test_a_long_list_of_mistakes_is_cut(app: FastAPI) -> None:
    labels = {f"{number}-{'k' * 1000}": 1 for number in range(50)}
    detail = (await refused(app, json.dumps({"name": "x", "labels": labels}).encode()))["detail"]
    assert detail.count("string_type") == 5
    assert len(detail) < 500


@pytest.mark.parametrize(
    "body",
    [
        CANARY.encode(),
        b"",
        b"\xff\xfe" + CANARY.encode(),
        b"[" * 30_000 + b"]" * 30_000,
        b'{"name":"x","count":1' + b"0" * 5_000 + b"}",
        b'{"name":"x","count":NaN}',
        b'{"name":"x","count":1e999}',
    ],
    ids=["text", "nothing", "no UTF-8", "deep", "a huge number", "NaN", "infinity"],
)
async def test_what_is_no_json_is_refused(app: FastAPI, body: bytes) -> None:
    assert (await refused(app, body))["status"] == 400


@pytest.mark.parametrize(
    "body",
    [
        rb'{"name":"\ud800"}',
        rb'{"name":"\uDFFF"}',
        rb'{"name":"x","labels":{"a":"\ude00\ud83d"}}',
        rb'{"name":"x","labels":{"\uD83D":"a"}}',
    ],
)
async def test_half_a_surrogate_pair_is_no_text(app: FastAPI, body: bytes) -> None:
    """No UTF-8 can hold it: let in, it would fail wherever the text is first written."""
    assert (await refused(app, body))["status"] == 400


async def test_a_whole_surrogate_pair_is_text(app: FastAPI) -> None:
    for body in (rb'{"name":"\ud83d\ude00"}', rb'{"name":"a\\ud800"}'):
        assert (await call(app, "POST", "/drafts", headers=JSON, body=body)).status == 200


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: json.dumps({"name": text}).encode()))
async def test_no_body_is_a_failure_of_ours(body: bytes) -> None:
    app = application("tests", lifespan=lifespan, readiness=Readiness())

    @app.post("/drafts")
    async def take(draft: Draft) -> str:
        return draft.model_dump_json()

    assert (await call(app, "POST", "/drafts", headers=JSON, body=body)).status in {200, 400}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", f"/{CANARY}", 404),
        ("DELETE", "/drafts", 405),
        ("GET", f"/numbers/{CANARY}", 400),
        ("GET", f"/numbers/1?word={CANARY}", 400),
        ("GET", "/numbers/1?word=%ff%fe%fd%fc", 400),
        ("GET", "/numbers/" + "9" * 5000, 400),
    ],
)
async def test_paths_and_queries_are_not_repeated_either(app: FastAPI, method: str, target: str, status: int) -> None:
    reply = await call(app, method, target)
    assert CANARY.encode() not in reply.body
    assert document(reply)["status"] == status


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequest("no"), 400, "bad-request"),
        (Unauthenticated("who"), 401, "unauthenticated"),
        (Forbidden("no"), 403, "forbidden"),
        (NotAvailable(), 404, "not-available"),
        (Conflict("taken"), 409, "conflict"),
        (TooLarge("long"), 413, "too-large"),
        (Unavailable("away"), 503, "unavailable"),
        (NotFresh("old"), 503, "not-fresh"),
        (KeyfobError("odd"), 500, "internal"),
    ],
)
async def test_our_errors_carry_their_own_status_and_kind(
    app: FastAPI, error: KeyfobError, status: int, kind: str
) -> None:
    @app.get("/failing")
    async def fail() -> None:
        raise error

    found = document(await call(app, "GET", "/failing"))
    assert (found["status"], found["type"]) == (status, f"https://keyfob.dev/problems/{kind}")
    assert found["detail"] == error.detail


async def test_a_failure_that_nobody_expected_says_nothing_of_itself(app: FastAPI) -> None:
    @app.get("/failing/{name}")
    async def fail(name: str) -> None:
        raise RuntimeError(name)

    events: list[dict[str, Any]] = []

    async def send(event: Any) -> None:
        events.append(event)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": f"/failing/{CANARY}", "query_string": b"", "headers": []}
    # It is raised for the server's log, which shows type and place.
    with pytest.raises(RuntimeError), capture_logs() as logged:
        await app(scope, receive, send)
    assert [(line["event"], line["route"]) for line in logged] == [("request failed", "/failing/{name}")]
    assert CANARY not in str(logged)
    assert events[0]["status"] == 500
    body = b"".join(event.get("body", b"") for event in events)
    assert CANARY.encode() not in body
    assert json.loads(body)["type"] == "https://keyfob.dev/problems/internal"


def test_what_is_absent_and_what_is_not_yours_are_the_same_bytes() -> None:
    assert problem_body(NotAvailable()) == problem_body(NotAvailable())
    assert problem_response(NotAvailable()).headers == problem_response(NotAvailable()).headers


def test_a_choice_names_what_to_choose_from() -> None:
    assert json.loads(problem_body(ChoiceNeeded("Which?", ("a", "b"))))["choices"] == ["a", "b"]


@pytest.mark.parametrize(("after_s", "said"), [(0.0, "1"), (0.25, "1"), (1.4, "1"), (2.6, "3"), (60.0, "60")])
def test_waiting_is_told_in_whole_seconds_and_never_none(after_s: float, said: str) -> None:
    assert problem_response(Unavailable("x", retry_after_s=after_s)).headers["retry-after"] == said


def test_waiting_is_told_only_where_it_helps() -> None:
    assert "retry-after" not in problem_response(BadRequest("x")).headers


def test_who_proves_no_identity_is_told_how_to() -> None:
    assert problem_response(Unauthenticated("x")).headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in problem_response(Forbidden("x")).headers


class TestBodyLimit:
    async def test_a_body_of_the_limit_passes_whole_however_it_is_cut(self) -> None:
        seen: list[bytes] = []

        async def keep(_: Scope, receive: Receive, send: Send) -> None:
            message = await receive()
            assert not message["more_body"]
            seen.append(message["body"])
            await nothing_there({}, receive, send)

        body = bytes(range(256)) * (BODY_LIMIT // 256)
        for chunk in (1024, BODY_LIMIT):
            await call(BodyLimit(keep), "POST", "/", body=body, chunk=chunk)
        assert seen == [body, body]

    @pytest.mark.parametrize("chunk", [7, 1000])
    async def test_one_byte_more_is_too_large_and_reaches_nobody(self, chunk: int) -> None:
        async def never(*_: Any) -> None:
            pytest.fail("the application was called")

        reply = await call(BodyLimit(never, limit=100), "POST", "/", body=b"x" * 101, chunk=chunk)
        assert document(reply)["status"] == 413

    async def test_what_comes_behind_the_limit_is_not_read(self) -> None:
        pieces = [b"x" * 60] * 10

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}

        async def send(_: Any) -> None:
            pass

        await BodyLimit(nothing_there, limit=100)({"type": "http"}, receive, send)
        assert len(pieces) == 8

    async def test_a_caller_that_goes_away_in_the_middle_is_not_served(self) -> None:
        messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def never(*_: Any) -> None:
            pytest.fail("the application was called")

        await BodyLimit(never)({"type": "http"}, receive, never)

    async def test_behind_the_body_the_application_hears_the_connection_itself(self) -> None:
        heard: list[str] = []

        async def listen(_: Scope, receive: Receive, send: Send) -> None:
            heard.extend([(await receive())["type"], (await receive())["type"]])
            await nothing_there({}, receive, send)

        await call(BodyLimit(listen), "POST", "/", body=b"x")
        assert heard == ["http.request", "http.disconnect"]

    async def test_what_is_no_request_passes_untouched(self) -> None:
        scopes: list[str] = []

        async def keep(scope: Scope, *_: Any) -> None:
            scopes.append(scope["type"])

        async def unused(*_: Any) -> Any:
            pytest.fail("nothing is to be read or sent")

        await BodyLimit(keep)({"type": "lifespan"}, unused, unused)
        assert scopes == ["lifespan"]


async def test_octets_arrive_as_they_came_also_where_they_look_like_broken_text() -> None:
    heard: list[bytes] = []

    async def take(_: Scope, receive: Receive, send: Send) -> None:
        heard.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    octets = b'{"a": "\\ud800"}\xff'
    kinds = ("application/octet-stream", "application/json")
    replies = [await call(BodyLimit(take), "PUT", "/", headers=[("content-type", kind)], body=octets) for kind in kinds]
    assert [reply.status for reply in replies] == [200, 400]
    assert heard == [octets]


async def test_what_is_sent_as_octets_is_never_taken_for_json() -> None:
    app = application("test", lifespan=lifespan, readiness=Readiness())

    @app.post("/")
    async def take(draft: Draft) -> str:
        return draft.name

    reply = await call(
        app, "POST", "/", headers=[("content-type", "application/octet-stream")], body=b'{"name": "\\ud800"}'
    )
    assert reply.status == 400
