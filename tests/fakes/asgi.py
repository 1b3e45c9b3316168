"""Talking to an ASGI application without a socket: what a server would hand it, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def call(
    app: ASGIApp,
    method: str,
    target: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    chunk: int = 16 * 1024,
    state: Mapping[str, Any] | None = None,
) -> Reply:
    """One request; the body arrives in chunks, as from a network."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": dict(state or {}),
    }
    chunks = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]
    events: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not chunks:
            return {"type": "http.disconnect"}
        piece = chunks.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(chunks)}

    async def send(event: Any) -> None:
        events.append(event)

    await app(scope, receive, send)
    start = next(event for event in events if event["type"] == "http.response.start")
    sent = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    whole = b"".join(event.get("body", b"") for event in events if event["type"] == "http.response.body")
    return Reply(start["status"], sent, whole)


async def nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that has nothing: 404 with a plain body."""
    del scope, receive
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"nothing there"})
