"""An httpx2 transport into an ASGI application that streams: server-sent events arrive as they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from starlette.types import ASGIApp


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, chunks: asyncio.Queue[bytes | None], left: asyncio.Event, task: asyncio.Task[None]) -> None:
        self._chunks, self._left, self._task = chunks, left, task

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def aclose(self) -> None:
        """The client hangs up: the application sees a disconnect."""
        self._left.set()
        await asyncio.wait({self._task}, timeout=2)
        self._task.cancel()


class StreamingASGI(httpx2.AsyncBaseTransport):
    """Runs each request as a task of its own, as a server does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        exchange = _Exchange(await request.aread())
        task = asyncio.create_task(exchange.run(self._app, _scope(request)))
        try:
            status, headers = await exchange.start
        except BaseException:
            task.cancel()
            raise
        return httpx2.Response(status, headers=headers, stream=_Stream(exchange.chunks, exchange.left, task))


class _Exchange:
    def __init__(self, body: bytes) -> None:
        self.start: asyncio.Future[tuple[int, list[tuple[bytes, bytes]]]] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.left = asyncio.Event()
        self._sent = [{"type": "http.request", "body": body, "more_body": False}]

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:
            if not self.start.done():
                self.start.set_exception(error)
            raise
        finally:
            self.chunks.put_nowait(None)

    async def _receive(self) -> Any:
        if self._sent:
            return self._sent.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.start.set_result((message["status"], list(message.get("headers", []))))
        elif message["type"] == "http.response.body":
            self.chunks.put_nowait(message.get("body", b""))
            if not message.get("more_body"):
                self.chunks.put_nowait(None)


def _scope(request: httpx2.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "root_path": "",
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
