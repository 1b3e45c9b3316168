"""The webhook: who may post, what is taken in, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.responses import PlainTextResponse

from services.sync.api.feed import FeedReceiver, FeedSecrets
from tests.fakes.asgi import Reply, call
from tests.fakes.loopback import write_secret

SECRET = "feed-secret-hunter2"


@dataclass(slots=True)
class Bench:
    receiver: FeedReceiver
    heard: list[tuple[str, Mapping[str, Any], str | None]] = field(default_factory=list)

    async def post(
        self, body: bytes, *, source: str = "main", authorization: str | None = f"Bearer {SECRET}", **headers: str
    ) -> Reply:
        given = list(headers.items())
        if authorization is not None:
            given.append(("authorization", authorization))
        return await call(self.receiver, "POST", f"/v1/feeds/{source}", headers=given, body=body)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    write_secret(tmp_path / "main", SECRET + "\n")
    write_secret(tmp_path / "empty", "")
    heard: list[tuple[str, Mapping[str, Any], str | None]] = []
    receiver = FeedReceiver(
        PlainTextResponse("the rest"),
        secrets=FeedSecrets(tmp_path),
        hear=lambda *given: heard.append(given),
        limit=10_000,
    )
    return Bench(receiver, heard)


async def test_an_entry_is_taken_in_with_the_trace_of_its_sender(bench: Bench) -> None:
    reply = await bench.post(b'{"type":"response"}', traceparent="00-1-2-01")
    assert reply.status == 202
    assert bench.heard == [("main", {"type": "response"}, "00-1-2-01")]


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x"]
)
async def test_without_the_right_secret_nothing_is_taken_in(bench: Bench, authorization: str | None) -> None:
    reply = await bench.post(b"{}", authorization=authorization)
    assert reply.status == 401
    assert reply.headers["content-type"] == "application/problem+json"
    assert bench.heard == []


@pytest.mark.parametrize("source", ["other", "empty", "", "..", "../main", "main/x", "%2e%2e%2fmain"])
async def test_an_unknown_source_is_refused_like_a_wrong_secret(bench: Bench, source: str) -> None:
    unknown = await bench.post(b"{}", source=source)
    wrong = await bench.post(b"{}", authorization="Bearer wrong")
    assert (unknown.status, unknown.body) == (wrong.status, wrong.body)
    assert (await bench.post(b"{}", source=source, authorization="Bearer ")).status == 401


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"1", b'"text"', b"\xff\xfe", b'{"a":"\xff"}', b"[" * 5000, b"null"]
)
async def test_what_is_not_a_json_object_is_the_senders_fault(bench: Bench, body: bytes) -> None:
    reply = await bench.post(body)
    assert reply.status == 400
    assert orjson.loads(reply.body)["status"] == 400
    assert bench.heard == []


async def test_an_entry_beyond_all_measure_is_refused_before_it_is_parsed(bench: Bench) -> None:
    assert (await bench.post(b'{"a":"' + b"x" * 1_000_000 + b'"}')).status == 413
    assert bench.heard == []


async def test_a_file_that_others_may_read_is_no_secret(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "main").chmod(0o644)
    assert (await bench.post(b"{}")).status == 401


async def test_a_replaced_secret_counts_at_once(bench: Bench, tmp_path: Path) -> None:
    assert (await bench.post(b"{}")).status == 202
    write_secret(tmp_path / "draft", "another")
    (tmp_path / "draft").replace(tmp_path / "main")
    assert (await bench.post(b"{}")).status == 401
    assert (await bench.post(b"{}", authorization="Bearer another")).status == 202


async def test_everything_else_passes(bench: Bench) -> None:
    assert (await call(bench.receiver, "GET", "/v1/sources")).body == b"the rest"
    assert (await call(bench.receiver, "GET", "/v1/feeds/main")).body == b"the rest"
