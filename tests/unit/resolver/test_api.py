"""What arrives over HTTP: bounded, never echoed, refused as problem documents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import orjson
import pytest

from services.resolver import app as resolver_app
from services.resolver.api import PATH, ResolveRoute, declare
from shared.health import Readiness
from shared.serving import application
from tests.fakes.asgi import Reply, call
from tests.fakes.resolving import AUDIENCE, Bench

HEADERS = (("Authorization", "Bearer not-a-token"), ("Keyfob-Assertion", "a.b.c"))


async def post(bench: Bench, body: bytes, headers: Iterable[tuple[str, str]] = HEADERS, target: str = PATH) -> Reply:
    assert bench.gateway.app is not None
    return await call(bench.gateway.app, "POST", target, headers=headers, body=body)


def problem(reply: Reply) -> dict[str, object]:
    assert reply.headers["content-type"] == "application/problem+json"
    document: dict[str, object] = orjson.loads(reply.body)
    assert document["status"] == reply.status
    return document


DEEP = b'{"server":"x","choices":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b'"x"', 400),
        (b"null", 400),
        (b"{}", 400),
        (b'{"server":""}', 400),
        (b'{"server":7}', 400),
        (b'{"server":"' + b"x" * 257 + b'"}', 400),
        (b'{"server":"x","contxt":"swordfish"}', 400),
        (b'{"server":"x","context":["swordfish"]}', 400),
        (b'{"server":"x","floor":{"policy":-1}}', 400),
        (b'{"server":"x","floor":{"policy":"1"}}', 400),
        (b'{"server":"x","choices":{"a":1}}', 400),
        (b'{"server":"\xff\xfe"}', 400),
        (b'{"server":"swordfish\\u0000"}', 400),
        (DEEP[: 60 * 1024], 400),
        (DEEP, 413),
        (b"x" * (1024 * 1024), 413),
    ],
)
async def test_a_malformed_body_is_a_problem_document_without_an_echo(bench: Bench, body: bytes, status: int) -> None:
    reply = await post(bench, body)
    assert reply.status == status
    assert problem(reply)
    assert b"swordfish" not in reply.body
    assert bench.log.entries == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 401),
        ((("Authorization", "Bearer x"),), 401),
        ((("Keyfob-Assertion", "a.b.c"),), 401),
        ((("Authorization", "Basic swordfish"), ("Keyfob-Assertion", "a.b.c")), 401),
        ((("Authorization", "Bearer "), ("Keyfob-Assertion", "a.b.c")), 401),
        (HEADERS, 401),
        ((("Authorization", "Bearer swordfish"), ("Keyfob-Assertion", "x" * 9_000)), 401),
        ((("Authorization", "Bearer " + "x" * 60_000), ("Keyfob-Assertion", "a.b.c")), 401),
        ((("Authorization", "Bearer sw\xf6rdfish"), ("Keyfob-Assertion", "a.b.c")), 400),
        ((*HEADERS, ("Authorization", "Bearer swordfish")), 400),
        ((*HEADERS, ("Keyfob-Assertion", "a.b.c")), 400),
    ],
)
async def test_a_request_that_proves_nobody_is_refused(
    bench: Bench, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    reply = await post(bench, b'{"server":"patients-db"}', headers)
    assert reply.status == status
    assert b"rdfish" not in reply.body
    assert problem(reply)


async def test_malformed_tokens_are_all_401(bench: Bench) -> None:
    good = bench.token()
    header, claims, signature = good.split(".")
    for token in (
        header,
        f"{header}.{claims}",
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature[:-4]}AAAA",
        f"{header}.{claims}.{signature}.x",
        f"e30.{claims}.{signature}",
        "..",
        "\x7f",
    ):
        assert (await bench.gateway.ask(token)).status == 401, token


async def test_an_assertion_covers_the_target_exactly_as_sent(bench: Bench) -> None:
    question = bench.gateway.question(bench.token())
    assert (await post(bench, question.body, question.headers, target=f"{PATH}?a=1")).status == 401
    assert (await post(bench, question.body, question.headers)).status == 200


async def test_an_assertion_covers_the_body_and_the_token(bench: Bench) -> None:
    question = bench.gateway.question(bench.token(subject="ana"))
    other = bench.gateway.question(bench.token(subject="bob"))
    mixed = (("Authorization", dict(other.headers)["Authorization"]), *question.headers[1:])
    assert (await post(bench, question.body, mixed)).status == 401
    assert (await post(bench, question.body + b" ", question.headers)).status == 401


async def test_an_answer_is_never_stored_on_its_way(bench: Bench) -> None:
    reply = await bench.gateway.ask(bench.token())
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "application/vnd.keyfob.sealed+json"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert b"HOSPITAL-A" not in reply.body


async def test_the_trace_of_the_caller_is_in_the_record(bench: Bench) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    bench.gateway.more_headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await bench.gateway.resolve(bench.token())
    assert {entry.trace_id for entry in bench.log.entries} == {trace}
    bench.gateway.more_headers = {"traceparent": "swordfish"}
    await bench.gateway.resolve(bench.token())
    assert bench.log.entries[-1].trace_id == ""


async def test_declared_to_fastapi_it_answers_the_same(bench: Bench) -> None:
    app = application("t", lifespan=contextlib.nullcontext, readiness=Readiness())
    declare(app, bench.resolver.resolve, AUDIENCE)
    bench.gateway.app = app
    assert (await bench.gateway.ask(bench.token())).status == 200
    assert (await bench.gateway.ask(bench.token(), context="hospital-b")).status == 404


async def test_everything_else_is_left_to_the_rest_of_the_application(bench: Bench) -> None:
    assert isinstance(bench.gateway.app, ResolveRoute)
    assert (await call(bench.gateway.app, "GET", PATH)).body == b"nothing there"
    assert (await call(bench.gateway.app, "POST", "/v1/resolve/")).body == b"nothing there"


def test_it_describes_itself_without_connecting_anywhere() -> None:
    described = resolver_app.openapi()
    assert "post" in described["paths"][PATH]
