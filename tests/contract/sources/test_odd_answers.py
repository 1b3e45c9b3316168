"""A vault that answers nonsense, too much, too late or elsewhere: no answer of it is taken for "not there"."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from services.sync.domain.observations import Missing, Unreached
from services.sync.sources.credentials import CredentialFiles
from services.sync.sources.kv2 import Kv2Reader
from services.sync.sources.port import Unsuitable
from shared.config import Mode
from shared.egress import Egress
from shared.events.catalog import KvSource
from tests.fakes.loopback import write_secret

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TOKEN = "s.hunter2"


@asynccontextmanager
async def reading(tmp_path: Path, handler: Handler, *, timeout_s: float = 2.0) -> AsyncIterator[Kv2Reader]:
    """A reader of a vault that answers as `handler` does."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    write_secret(tmp_path / "main.json", json.dumps({"origin": origin, "token": TOKEN}))
    credentials = CredentialFiles(tmp_path, mode=Mode.DEVELOPMENT)
    try:
        async with Egress(mode=Mode.DEVELOPMENT, timeout_s=timeout_s, limit=100_000) as egress:
            place = KvSource(origin=origin)
            yield Kv2Reader("main", place, egress=egress, credentials=credentials, mode=Mode.DEVELOPMENT)
    finally:
        await runner.cleanup()


def answering(status: int, body: object, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=content, headers=headers)

    return handler


GOOD = {"current_version": 1, "created_time": "2026-01-01T00:00:00Z", "updated_time": "2026-01-01T00:00:00Z"}
NONSENSE = [
    (200, b"<html>hunter2: please log in</html>"),
    (200, b"\xff\xfe"),
    (200, b""),
    (200, []),
    (200, {"data": None}),
    (200, {"data": {"current_version": "one"}}),
    (200, {"data": GOOD | {"current_version": -1}}),
    (200, {"data": GOOD | {"created_time": "yesterday"}}),
    (200, {"data": GOOD | {"created_time": "2026-01-01T00:00:00"}}),
    (200, {"data": GOOD | {"versions": {"1": "hunter2"}}}),
    (204, b""),
    (301, b""),
    (307, b""),
    (400, {"errors": ["hunter2"]}),
    (404, b"<html>no such page: hunter2</html>"),
    (404, {"errors": ["no handler for route"]}),
    (412, {"errors": []}),
    (429, {"errors": []}),
    (472, b""),
    (500, {"errors": ["1 error occurred: hunter2"]}),
    (502, b"bad gateway"),
    (503, {"errors": ["Vault is sealed"]}),
    (200, b"x" * 200_000),
]


@pytest.mark.parametrize(("status", "body"), NONSENSE)
async def test_only_a_clear_answer_says_that_something_is_gone(tmp_path: Path, status: int, body: object) -> None:
    async with reading(tmp_path, answering(status, body, Location="http://169.254.169.254/")) as reader:
        for keys in (False, True):
            seen = await reader.read("db", keys=keys)
            assert isinstance(seen, Unreached), seen
            assert "hunter2" not in seen.why
            assert len(seen.why) <= 200


async def test_a_clear_answer_is_an_empty_list_of_errors(tmp_path: Path) -> None:
    async with reading(tmp_path, answering(404, {"errors": []})) as reader:
        assert await reader.read("db", keys=True) == Missing("db")


async def test_a_refusal_of_everything_is_not_a_closed_path(tmp_path: Path) -> None:
    async with reading(tmp_path, answering(403, {"errors": ["permission denied"]})) as reader:
        assert isinstance(await reader.read("db", keys=True), Unreached)
        assert isinstance(await reader.check(), Unreached)
        assert [type(entry) async for entry in reader.entries()] == [Unreached]


async def test_a_list_that_leads_into_itself_ends(tmp_path: Path) -> None:
    async with reading(
        tmp_path, answering(200, {"data": {"keys": ["again/", "../", "./", "//", "", 7, None]}})
    ) as reader:
        assert [entry async for entry in reader.entries()] == []


async def test_a_server_without_pages_is_not_asked_for_ever(tmp_path: Path) -> None:
    names = [f"{number:03}" for number in range(500)]
    async with reading(tmp_path, answering(200, {"data": {"keys": names}})) as reader:
        entries = [entry async for entry in reader.entries()]
    assert {entry.path for entry in entries} == set(names)  # type: ignore[union-attr]


async def test_an_answer_that_never_comes_is_none(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with reading(tmp_path, silent, timeout_s=0.1) as reader:
        assert isinstance(await reader.read("db", keys=True), Unreached)
        over.set()


async def test_a_mount_of_another_kind_is_not_suitable(tmp_path: Path) -> None:
    for mount in ({"type": "kv", "options": {"version": "1"}}, {"type": "kv", "options": None}, {"type": "transit"}):
        async with reading(tmp_path, answering(200, {"data": mount})) as reader:
            assert isinstance(await reader.check(), Unsuitable)


async def test_the_token_goes_to_the_origin_it_was_entered_for_and_nowhere_else(tmp_path: Path) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.headers["X-Vault-Token"])
        return web.json_response({"errors": []}, status=404)

    async with reading(tmp_path, handler) as reader:
        await reader.read("db", keys=False)
        write_secret(tmp_path / "main.json", json.dumps({"origin": "http://127.0.0.1:1", "token": TOKEN}))
        seen = await reader.read("db", keys=False)
    assert asked == [TOKEN]
    assert isinstance(seen, Unreached)
    assert "another origin" in seen.why
