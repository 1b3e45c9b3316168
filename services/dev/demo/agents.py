"""Agents of the story: the official MCP SDK, streamable HTTP, each with a token of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

# Longer than a gateway lets a server's start take (30 s): its own words arrive before our patience ends.
_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a gateway refused a connection: the status and the body, byte for byte."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Database:
    """An open MCP connection to the server `patients-db`."""

    client: Client

    async def query(self, sql: str) -> str:
        """The text that the server's `execute_query` gives."""
        result = await self.client.call_tool("execute_query", {"query": sql})
        return "\n".join(str(getattr(block, "text", "")) for block in result.content)

    async def patients(self) -> list[str]:
        """The names of the patients that this connection can see, in order."""
        text = await self.query("select name from patients order by name")
        return [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("name:")]


@dataclass(frozen=True, slots=True)
class Agent:
    """Somebody with a token."""

    name: str
    token: str = field(repr=False)

    def headers(self, **more: str) -> dict[str, str]:
        """What each of the agent's requests carries."""
        return {"Authorization": f"Bearer {self.token}", **more}

    @asynccontextmanager
    async def connect(self, url: str, *, mode: str = "auto") -> AsyncIterator[Database]:
        """An open MCP connection to `url`, in the newest protocol revision that both sides speak."""
        async with (
            httpx2.AsyncClient(headers=self.headers(), timeout=_TIMEOUT_S) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            yield Database(client)

    async def refusal(self, url: str, **headers: str) -> Refusal | None:
        """The gateway's refusal of a first request to `url`; None if it lets the agent in."""
        # By hand and not through the SDK: status and body are what the story compares, byte for byte.
        opening = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": self.name, "version": "1"},
            },
        }
        accept = {"Accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S) as http:
            response = await http.post(url, json=opening, headers=self.headers(**accept, **headers))
        return Refusal(response.status_code, response.content) if response.is_error else None
