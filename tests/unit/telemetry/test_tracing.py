"""Each request is one span under its caller's; what it names is the route, never what stood in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Response
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from starlette.types import Receive, Scope, Send

from shared import telemetry
from shared.serving import NO_TELEMETRY
from shared.telemetry import JsonLinesExporter, current_traceparent
from shared.tracing import Traced
from tests.fakes.asgi import call, nothing_there

CANARY = "hunter2-canary"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    file = tmp_path / "spans.jsonl"
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(file, "tests")))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("tests"))
    return lambda: [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def app() -> Traced:
    app = FastAPI(telemetry=NO_TELEMETRY)

    @app.get("/references/{name}")
    async def look(name: str) -> Response:
        return Response(current_traceparent(), status_code=202)

    @app.get("/failing")
    async def fail() -> None:
        raise ValueError(CANARY)

    return Traced(app)


async def test_a_request_goes_on_with_its_callers_trace(app: Traced, spans: Callable[[], list[dict[str, Any]]]) -> None:
    reply = await call(app, "GET", "/references/x", headers=[("Traceparent", CALLER)])
    (span,) = spans()
    assert (span["trace_id"], span["parent_id"]) == (CALLER[3:35], CALLER[36:52])
    assert reply.body.decode()[3:52] == f"{span['trace_id']}-{span['span_id']}"


async def test_it_is_named_by_its_route_and_says_how_it_was_answered(
    app: Traced, spans: Callable[[], list[dict[str, Any]]]
) -> None:
    await call(app, "GET", f"/references/{CANARY}?token={CANARY}")
    (span,) = spans()
    assert (span["name"], span["kind"]) == ("HTTP GET /references/{name}", "SERVER")
    assert span["attributes"] == {"http.response.status_code": 202}


async def test_a_path_that_leads_nowhere_is_not_repeated(
    app: Traced, spans: Callable[[], list[dict[str, Any]]]
) -> None:
    await call(app, "GET", f"/{CANARY}")
    (span,) = spans()
    assert span["name"] == "HTTP GET"
    assert CANARY not in json.dumps(span)


async def test_a_failure_is_marked_by_its_type(app: Traced, spans: Callable[[], list[dict[str, Any]]]) -> None:
    with pytest.raises(ValueError, match=CANARY):
        await call(app, "GET", "/failing")
    (span,) = spans()
    assert span["status"] == "ERROR"
    assert CANARY not in json.dumps(span)


@pytest.mark.parametrize("garbage", ["", "x" * 5000, "00-0-0-01", "\xff\xfe", f"{CALLER}-{CALLER}"])
async def test_whatever_a_stranger_says_of_its_trace_the_request_is_served(
    app: Traced, spans: Callable[[], list[dict[str, Any]]], garbage: str
) -> None:
    assert (await call(app, "GET", "/references/x", headers=[("traceparent", garbage)])).status == 202
    assert spans()[0]["parent_id"] is None


async def test_what_is_no_request_passes_without_a_span() -> None:
    seen: list[str] = []

    async def keep(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(current_traceparent() or "none")

    await Traced(keep)({"type": "lifespan"}, nothing_there, nothing_there)  # type: ignore[arg-type]
    assert seen == ["none"]
