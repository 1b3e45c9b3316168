"""A secret manager that gives its answers wrongly: what the real one says, in shapes that nobody expects.

Each way of spoiling still has the value in it, where a careless client would quote it: in an error message, in what a
parser stumbles over, in a header, in the reason phrase, in a redirect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import aiohttp
from aiohttp import web

from services.dev.platform.ports import LOOPBACK, free_port

Spoil = Callable[[bytes], web.Response]


def _error(status: int) -> Spoil:
    def spoil(body: bytes) -> web.Response:
        return web.json_response({"errors": [f"1 error occurred: can't decode {body.decode()}"]}, status=status)

    return spoil


def _header(body: bytes) -> web.Response:
    headers = {"X-Vault-Debug": quote(body), "Location": f"http://elsewhere.test/?value={quote(body)}"}
    return web.Response(status=307, headers=headers, body=body)


WAYS: dict[str, Spoil] = {
    "400 that quotes": _error(400),
    "403 that quotes": _error(403),
    "404 that quotes": _error(404),
    "500 that quotes": _error(500),
    "503 that quotes": _error(503),
    "cut JSON": lambda body: web.Response(body=body[:-3], content_type="application/json"),
    "text": lambda body: web.Response(body=b"value: " + body, content_type="text/plain"),
    "a page": lambda body: web.Response(body=b"<html>" + body, content_type="text/html", status=502),
    "other types": lambda body: web.json_response({"data": [body.decode()], "errors": {"a": body.decode()}}),
    "the value alone": lambda body: web.json_response({"data": {"data": body.decode(), "metadata": body.decode()}}),
    "a version that is a value": lambda body: web.json_response(
        {"data": {"data": {"value": 1}, "metadata": {"version": body.decode()}}}
    ),
    "not UTF-8": lambda body: web.Response(body=b"\xff\xfe" + body, content_type="application/json"),
    "a false encoding": lambda body: web.Response(body=body, headers={"Content-Encoding": "gzip"}),
    "a reason that quotes": lambda body: web.Response(status=500, reason=quote(body)[:900], body=body),
    "a redirect that quotes": _header,
}


@dataclass(slots=True)
class Spoiler:
    """In front of `origin`; unless it is `spoiling`, everything goes through as it is. Each answer another way."""

    origin: str
    url: str = ""
    spoiling: bool = False
    spoilt: Counter[str] = field(default_factory=Counter)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        passed_on = {name: value for name, value in request.headers.items() if name.lower().startswith("x-vault")}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, self.origin + request.raw_path, headers=passed_on) as answer,
        ):
            body, status = await answer.read(), answer.status
        if not self.spoiling or "/data/" not in request.path:
            return web.Response(status=status, body=body, content_type="application/json")
        way = min(WAYS, key=lambda name: self.spoilt[name])
        self.spoilt[way] += 1
        return WAYS[way](body)


@asynccontextmanager
async def spoiler(origin: str) -> AsyncIterator[Spoiler]:
    """One that listens, on loopback."""
    port = free_port()
    made = Spoiler(origin, f"http://{LOOPBACK}:{port}")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    try:
        yield made
    finally:
        await runner.cleanup()
