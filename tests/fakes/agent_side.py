"""A gateway without sockets, around a fake installation: the real edge, SDK and child processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import CallToolResult

from services.gateway.client.instance import Holding, Instance
from services.gateway.edge import Edge
from services.gateway.files import ValueFiles, usual_places
from services.gateway.proxy import Proxy
from services.gateway.seats import Seats
from services.gateway.upstream import Limits, Upstream
from shared.config import Mode
from shared.events.definitions import EnvironmentField, FileField, StdioServer
from tests.fakes.asgi_stream import StreamingASGI
from tests.fakes.installation import Installation
from tests.waiting import until

SERVER = Path(__file__).with_name("stdio_server.py")
BODY_LIMIT = 1024 * 1024


def teller(*args: str, fields: tuple[str, ...] = ("DB_URL",), files: tuple[str, ...] = ()) -> StdioServer:
    """The definition of the small server."""
    return StdioServer(
        command=sys.executable,
        args=("-I", "-S", str(SERVER), *args),
        environment={"GREETING": "hello"},
        fields=(
            *(EnvironmentField(name=name) for name in fields),
            *(FileField(inject="file", name=name) for name in files),
        ),
    )


def said(result: Any) -> str:
    assert isinstance(result, CallToolResult)
    return "".join(getattr(block, "text", "") for block in result.content)


@dataclass
class Agents:
    """The agents' side of one running gateway."""

    installation: Installation
    instance: Instance
    seats: Seats
    http: StreamingASGI

    @asynccontextmanager
    async def connect(self, token: str, target: str = "teller", *, mode: str = "auto") -> AsyncIterator[Client]:
        """The official client, connected."""
        async with (
            self.client(token) as http,
            Client(streamable_http_client(f"http://gateway/mcp/{target}", http_client=http), mode=mode) as client,
        ):
            yield client

    def client(self, token: str = "", **headers: str) -> httpx2.AsyncClient:
        """Plain HTTP to the gateway."""
        own = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(transport=self.http, headers={**own, **headers}, base_url="http://gateway")

    async def ask(self, client: Client, tool: str, **arguments: Any) -> str:
        return said(await client.call_tool(tool, arguments))

    async def environment(self, client: Client) -> dict[str, str]:
        """What the server was given: it tells it backwards, since as it is it would be redacted."""
        found: dict[str, str] = json.loads(await self.ask(client, "environment"))
        return {name: value[::-1] for name, value in found.items()}

    async def settled(self) -> int:
        """Wait until everything that was said is dropped; the offset."""
        ledger = self.instance.ledger
        end = self.installation.notices.end - 1
        await until(lambda: ledger.progress().dropped_offset >= end, what="everything dropped")
        return end


@asynccontextmanager
async def gateway(
    installation: Installation,
    *,
    drain_s: float = 5.0,
    idle_s: float = 600.0,
    upstream_limit: int = 20,
    one_subject: bool = False,
    end_on_guess: bool = False,
    allowed_variables: frozenset[str] = frozenset(),
    line_limit: int = 1024 * 1024,
    start_s: float = 10.0,
    stop_s: float = 0.3,
    transport: httpx2.AsyncBaseTransport | None = None,
    **settings: float,
) -> AsyncIterator[Agents]:
    """A gateway whose instance has heard its first tick."""
    instance = installation.instance(**settings)
    limits = Limits(
        start_s=start_s,
        stop_s=stop_s,
        drain_s=drain_s,
        line_limit=line_limit,
        command_path="/usr/bin:/bin",
        mode=Mode.DEVELOPMENT,
        transport=transport,
        files=ValueFiles.of(instance.identity.instance_id, usual_places()),
        allowed_variables=allowed_variables,
    )

    def start_upstream(holding: Holding) -> Upstream:
        return Upstream(holding.server.definition, holding.values, limits)

    seats = Seats(
        instance, start_upstream, upstream_limit=upstream_limit, one_subject=one_subject, end_on_guess=end_on_guess
    )
    manager = StreamableHTTPSessionManager(Proxy(seats).server(), max_request_body_size=BODY_LIMIT)
    edge = Edge(seats, manager.handle_request, body_limit=BODY_LIMIT, session_limit=100)
    await instance.start()
    tasks = [
        asyncio.create_task(instance.run()),
        asyncio.create_task(seats.tend(idle_s=idle_s, every_s=0.05)),
    ]
    installation.tick()
    await until(lambda: instance.not_ready() is None)
    try:
        async with manager.run():
            yield Agents(installation, instance, seats, StreamingASGI(edge))
    finally:
        await seats.close(within_s=5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
