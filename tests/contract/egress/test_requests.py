"""What really goes out over the guarded connections, and what comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from shared.config import Mode
from shared.egress import Egress, NotReached


@asynccontextmanager
async def _server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_an_answer_comes_whole() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=request.method + request.path, headers={"X-One": "1"})

    async with _server(handler) as url, Egress(mode=Mode.DEVELOPMENT) as egress:
        answer = await egress.request("GET", url + "/a")
    assert (answer.status, answer.body, answer.headers["X-One"]) == (200, b"GET/a", "1")


async def test_a_redirect_is_not_followed() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest"})

    async with _server(handler) as url, Egress(mode=Mode.DEVELOPMENT) as egress:
        assert (await egress.request("GET", url)).status == 302


async def test_loopback_is_not_reached_in_production() -> None:
    reached = []

    async def handler(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response()

    async with _server(handler) as url, Egress(mode=Mode.PRODUCTION) as egress:
        for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(NotReached):
                await egress.request("GET", url.replace("127.0.0.1", host))
    assert reached == []


async def test_an_endless_answer_ends_at_the_limit() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    async with _server(handler) as url, Egress(mode=Mode.DEVELOPMENT, limit=10_000) as egress:
        with pytest.raises(NotReached, match="longer than"):
            await egress.request("GET", url)


async def test_silence_ends_at_the_deadline() -> None:
    over = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with _server(handler) as url, Egress(mode=Mode.DEVELOPMENT, timeout_s=0.1) as egress:
        with pytest.raises(NotReached, match=r"0\.1 s"):
            await egress.request("GET", url)
        over.set()


async def test_nobody_listening_is_not_reached() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with Egress(mode=Mode.DEVELOPMENT) as egress:
            with pytest.raises(NotReached, match="no connection"):
                await egress.request("GET", f"http://127.0.0.1:{port}")


async def test_a_failure_does_not_repeat_the_url() -> None:
    async with Egress(mode=Mode.DEVELOPMENT) as egress:
        for url in ("http://vault.invalid/hunter2", "no-scheme/hunter2", "http://a b/hunter2"):
            with pytest.raises(NotReached) as caught:
                await egress.request("GET", url, headers={"X-Token": "hunter2"})
            assert "hunter2" not in str(caught.value)
