"""How servers elsewhere end: nothing is sent with the value any more, and no server decides how long that takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp import MCPError

from services.gateway.upstream import Limits, Upstream
from shared.config import Mode
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable
from shared.events.definitions import HeaderField, HttpServer
from tests.fakes.http_server import URL
from tests.waiting import until


@asynccontextmanager
async def living(upstream: Upstream) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(upstream.run())
    try:
        yield task
    finally:
        upstream.kill()
        await asyncio.wait({task}, timeout=2)
        task.cancel()


class Holding(httpx2.AsyncByteStream):
    """A body that gives a little now and then, and never ends."""

    def __init__(self, drip: bytes) -> None:
        self._drip = drip

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield self._drip
            await asyncio.sleep(0.05)


class Clinging(httpx2.AsyncBaseTransport):
    """A server with a session id that ends its GET streams at once, and drips bytes at a DELETE and at a call."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.drip = b" "
        self.connected = asyncio.Event()
        self.connected.set()
        self.handshake = asyncio.Event()
        self.handshake.set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert request.headers["a"] == "value"
        await self.connected.wait()
        if request.method == "GET":
            self.asked.append("GET")
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"retry: 50\n\n")
        if request.method == "DELETE":
            self.asked.append("DELETE")
            return httpx2.Response(200, stream=Holding(self.drip))
        asked = json.loads(await request.aread())
        self.asked.append(asked["method"])
        if asked["method"] == "initialize":
            await self.handshake.wait()
            result = {
                "protocolVersion": asked["params"]["protocolVersion"],
                "capabilities": {},
                "serverInfo": {"name": "clinging", "version": "1"},
            }
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
            return httpx2.Response(200, headers={"mcp-session-id": "one"}, json=answer)
        if "id" not in asked:
            return httpx2.Response(202)
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=Holding(self.drip))


def clinging(server: Clinging, line_limit: int = 1 << 20) -> Upstream:
    definition = HttpServer(url=URL, fields=(HeaderField(name="DB_URL", header="A"),))
    limits = Limits(
        start_s=5,
        stop_s=0.3,
        drain_s=5,
        line_limit=line_limit,
        command_path="/usr/bin:/bin",
        mode=Mode.DEVELOPMENT,
        transport=server,
    )
    return Upstream(definition, {"DB_URL": SecretBytes(b"value")}, limits)


@pytest.mark.parametrize("end", [Upstream.kill, Upstream.stop])
async def test_a_server_elsewhere_that_is_ended_gets_no_request_any_more_and_holds_nothing_up(
    end: Callable[[Upstream], None],
) -> None:
    server = Clinging()
    upstream = clinging(server)
    async with living(upstream) as life:
        await upstream.ready()
        async with upstream.call() as session:
            call = asyncio.create_task(session.list_tools())
            await until(lambda: "tools/list" in server.asked and "GET" in server.asked)
            before = len(server.asked)
            end(upstream)
            await asyncio.wait({life, call}, timeout=2)
            requests = server.asked[before:]
            assert (requests, life.done(), call.done()) == ([], True, True)
            with pytest.raises(MCPError):
                await call
        # Longer than the server's word for when to come back for more.
        await asyncio.sleep(0.2)
        assert server.asked[before:] == []
    assert all(value.wiped for value in upstream._values.values())


async def test_a_kill_ends_the_handshake_with_a_server_elsewhere() -> None:
    server = Clinging()
    server.handshake.clear()
    upstream = clinging(server)
    async with living(upstream) as life:
        await until(lambda: server.asked == ["initialize"])
        upstream.kill()
        await asyncio.wait({life}, timeout=2)
        assert life.done()
        assert server.asked == ["initialize"]
        with pytest.raises(Unavailable):
            await upstream.ready()


async def test_a_kill_takes_back_a_request_that_waits_for_its_connection() -> None:
    server = Clinging()
    upstream = clinging(server)
    async with living(upstream) as life:
        await upstream.ready()
        async with upstream.call() as session:
            await until(lambda: "GET" in server.asked)
            server.connected.clear()
            call = asyncio.create_task(session.list_tools())
            await asyncio.sleep(0.1)
            before = len(server.asked)
            upstream.kill()
            server.connected.set()
            await asyncio.wait({life, call}, timeout=2)
            requests = server.asked[before:]
            assert (requests, life.done(), call.done()) == ([], True, True)
            with pytest.raises(MCPError):
                await call


async def test_an_answer_beyond_the_limit_ends_the_call_with_an_error() -> None:
    server = Clinging()
    upstream = clinging(server, line_limit=1024)
    server.drip = b" " * 512
    async with living(upstream):
        await upstream.ready()
        async with upstream.call() as session, asyncio.timeout(5):
            with pytest.raises(MCPError):
                await session.list_tools()
