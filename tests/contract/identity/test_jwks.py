"""Keys are fetched over real HTTP within bounds, and every way of failing is the same `Unavailable`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.errors import Unavailable
from shared.identity import JwksFetcher
from shared.identity.jwks import LARGEST_DOCUMENT, LONGEST_FETCH_S

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[JwksFetcher, str]]:
    """Serve `handler` at any path; give a fetcher and an address."""
    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    async with TestServer(application) as server, aiohttp.ClientSession() as session:
        yield JwksFetcher(session, allow_http=True), str(server.make_url("/jwks"))


def saying(body: bytes, status: int = 200, **headers: str) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return handler


async def test_a_document_is_fetched() -> None:
    async with serving(saying(b'{"keys":[{"kid":"1"}]}')) as (fetch, uri):
        assert await fetch(uri) == {"keys": [{"kid": "1"}]}


@pytest.mark.parametrize(
    "handler",
    [
        saying(b'{"keys":[]}', 500),
        saying(b'{"keys":[]}', 204),
        saying(b"", 302, Location="/elsewhere"),
        saying(b"not json"),
        saying(b"[]"),
        saying(b'{"keys":{}}'),
        saying(b'{"keys":"' + b"x" * LARGEST_DOCUMENT + b'"}'),
        saying(b"[" * 100_000),
    ],
    ids=["error", "nothing", "redirect", "no json", "no object", "no list", "too large", "too deep"],
)
async def test_anything_else_is_unavailable_and_is_not_quoted(handler: Handler) -> None:
    async with serving(handler) as (fetch, uri):
        with pytest.raises(Unavailable) as failed:
            await fetch(uri)
        assert uri not in str(failed.value)


async def test_a_redirect_is_not_followed() -> None:
    asked = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        raise web.HTTPFound("/elsewhere")

    async with serving(elsewhere) as (fetch, uri):
        with pytest.raises(Unavailable):
            await fetch(uri)
    assert asked == ["/jwks"]


async def test_an_endless_answer_ends_at_the_bound() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" " * 65536)
            sent += 65536

    async with serving(endless) as (fetch, uri):
        with pytest.raises(Unavailable, match="too large"):
            await fetch(uri)
    assert sent < 100 * LARGEST_DOCUMENT


async def test_an_answer_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.identity.jwks.LONGEST_FETCH_S", 0.05)

    async def silent(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(silent) as (fetch, uri):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(fetch(uri), LONGEST_FETCH_S)


async def test_a_place_where_nobody_listens_is_unavailable() -> None:
    async with serving(saying(b"")) as (fetch, uri):
        closed = uri
    async with aiohttp.ClientSession() as session:
        fetch = JwksFetcher(session, allow_http=True)
        with pytest.raises(Unavailable):
            await fetch(closed)


@pytest.mark.parametrize("uri", ["http://idp.example/jwks", "file:///etc/passwd", "ftp://idp.example/", ""])
async def test_only_https_is_asked_outside_development(uri: str) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Unavailable, match="https"):
            await JwksFetcher(session)(uri)
