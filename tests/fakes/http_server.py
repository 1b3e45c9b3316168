"""An MCP server over streamable HTTP that remembers the headers it was called with; no sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from mcp import types
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fakes.asgi_stream import StreamingASGI

URL = "http://127.0.0.1:9/mcp"


@dataclass
class HttpTeller:
    """`answers` are given instead of the server's own, first in, first out."""

    seen: list[dict[str, str]] = field(default_factory=list)
    answers: list[ASGIApp] = field(default_factory=list)
    manager: StreamableHTTPSessionManager | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        if self.answers and scope["method"] == "POST":
            await self.answers.pop(0)(scope, receive, send)
            return
        assert self.manager is not None
        await self.manager.handle_request(scope, receive, send)


@asynccontextmanager
async def http_teller() -> AsyncIterator[tuple[HttpTeller, StreamingASGI]]:
    """The server and the transport that leads to it."""
    teller = HttpTeller()

    async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="headers", input_schema={"type": "object"})])

    async def call_tool(ctx: Any, params: Any) -> types.CallToolResult:
        # Backwards: as it is it would be redacted.
        said = ctx.request.headers.get("authorization", "")
        said = said if params.name == "echo" else said[::-1]
        return types.CallToolResult(content=[types.TextContent(type="text", text=said)])

    server: Server[Any] = Server("http-teller", on_list_tools=list_tools, on_call_tool=call_tool)
    teller.manager = StreamableHTTPSessionManager(server)
    async with teller.manager.run():
        yield teller, StreamingASGI(teller)
