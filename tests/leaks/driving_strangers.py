"""What clients send where it does not belong: in paths, queries, headers and bodies, to every operation there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from services.dev.demo.stage import GATEWAYS
from services.dev.stack.environments import RESOLVERS, SERVICES
from tests.e2e.test_bad_input import at, operations
from tests.leaks.canaries import Canary
from tests.leaks.ward import PROFILE, VAULT, Ward

_LINE_S = 3.0


async def knock(ward: Ward, name: str) -> None:
    """Every operation of a service, as the admin and as nobody, with a canary in each part of a request."""
    canary = ward.canaries.new(f"what a client sent to {name}", plain=True)
    base, allowed = ward.url(name), _admin(ward)
    limit = asyncio.Semaphore(4)

    async def send(method: str, url: str, headers: dict[str, str], content: bytes | None) -> None:
        async with limit:
            with suppress(httpx2.HTTPError):
                answer = await ward.http.request(method, url, headers=headers, content=content)
                _keep(ward, canary, f"{method} {urlsplit(url).path} of {name}", answer)

    tasks = [
        send(method, base + url, headers, content)
        for method, path in operations(name)
        for url, headers, content in _requests(method, path, canary.text, allowed)
    ]
    await asyncio.gather(*tasks)
    await _speak_no_http(ward, name, canary)
    ward.did("bad requests", len(tasks))


def _requests(
    method: str, path: str, canary: str, allowed: dict[str, str]
) -> Iterator[tuple[str, dict[str, str], bytes | None]]:
    query = "&".join(
        f"{name}={canary}" for name in ("limit", "after", "server", "field", "profile", "reference", canary)
    )
    wrong = json.dumps(
        {"name": [canary], "server": {canary: canary}, "source": [canary], "subject": [canary], canary: 1}
    )
    content = wrong.encode() if method in {"POST", "PUT"} else None
    json_type = {"content-type": "application/json"}
    yield at(path, canary) + "?" + query, allowed | json_type, content
    yield at(path), {"authorization": f"Bearer {canary}"}, content
    yield at(path), {"authorization": canary, "cookie": f"session={canary}"} | json_type, content
    strange = {
        # One that is valid is the client's to choose, and is kept.
        "traceparent": f"00-{canary}-{canary}-01",
        "tracestate": f"k={canary}",
        "baggage": f"a={canary}",
    }
    yield at(path), allowed | strange | {f"x-{canary}": canary, "user-agent": canary, "host": f"{canary}.test"}, content
    yield at(path), allowed | {"content-type": canary, "content-encoding": canary}, canary.encode()
    if content is not None:
        yield at(path), allowed | json_type, b'{"name": "' + canary.encode() + b'\xff", ' + canary.encode()


def _keep(ward: Ward, canary: Canary, what: str, answer: httpx2.Response) -> None:
    assert answer.status_code < 500 or answer.status_code == 503, (what, answer.status_code)
    # Somebody's own words in an answer to them (a member of their body that is unknown) are no leak; all else is.
    content = answer.content + str(answer.headers).encode()
    ward.heard(what, content.replace(canary.secret, b"[their own words]"))


async def _speak_no_http(ward: Ward, name: str, canary: Canary) -> None:
    """Bytes that are no request: the parser's own errors would quote them."""
    address = urlsplit(ward.url(name))
    for line in (f"GET /{canary.text} HTTP/9.9", f"{canary.text} / HTTP/1.1", f"GET / HTTP/1.1\r\n{canary.text}"):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(line.encode() + b"\r\n\r\n")
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINE_S):
                ward.heard(f"no HTTP to {name}", await reader.read(4096))
        writer.close()


def _admin(ward: Ward) -> dict[str, str]:
    return {"authorization": f"Bearer {ward.stage.stack.layout.admin_token.read_text()}"}


async def look_at_everything(ward: Ward) -> None:
    """Every list and every document that there is for the admin."""
    reads: list[Coroutine[Any, Any, None]] = []
    for name in (*SERVICES, *GATEWAYS):
        paths = [path for method, path in operations(name) if method == "GET" and "{" not in path]
        reads += [_read(ward, name, path, _admin(ward)) for path in paths]
        reads += [_read(ward, name, path, {}) for path in ("/metrics", "/openapi.json", "/docs", "/debug", "/readyz")]
    await asyncio.gather(*reads)


async def _read(ward: Ward, name: str, path: str, headers: dict[str, str]) -> None:
    # Some go on for as long as somebody listens.
    with suppress(httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(_LINE_S):
            answer = await ward.http.get(ward.url(name) + path, headers=headers)
            ward.heard(f"{path} of {name}", answer.content)
            ward.did("documents read")


async def knock_at_gateways(ward: Ward) -> None:
    """An agent that puts a canary wherever MCP and Keyfob's own headers have a place for text."""
    agent = ward.somebody()
    for gateway in GATEWAYS:
        canary = ward.canaries.new(f"what an agent sent to {gateway}", plain=True)
        asked = ward.canaries.new(f"a name that an agent asked {gateway} for", plain=True, recorded=True)
        for path, headers, body in _calls(canary.text, asked.text):
            with suppress(httpx2.HTTPError):
                url = f"{ward.url(gateway)}/mcp/{path}"
                accept = {"accept": "application/json, text/event-stream"}
                answer = await ward.http.post(url, headers=agent.headers(**accept, **headers), content=body)
                _keep(ward, canary, f"an opening at {gateway}", answer)
        await ward.talk(agent, VAULT, gateway, (canary.text, {canary.text: canary.text}), ("repeat", {"text": "x"}))
        await _speak_no_http(ward, gateway, canary)
        ward.did("bad requests", 16)


def _calls(canary: str, asked: str) -> Iterator[tuple[str, dict[str, str], bytes]]:
    opening = _message(
        "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _client(canary)}
    )
    yield asked, {}, opening
    yield f"{VAULT}/{asked}", {}, opening
    yield f"{VAULT}/{quote(PROFILE)}?token={canary}", {}, opening
    yield VAULT, {"keyfob-choice": f"TOKEN={canary}"}, opening
    yield VAULT, {"keyfob-context": asked}, opening
    yield VAULT, {"mcp-session-id": canary}, opening
    yield VAULT, {"mcp-protocol-version": canary}, opening
    yield VAULT, {"traceparent": canary, "x-token": canary}, opening
    yield VAULT, {}, canary.encode()
    yield VAULT, {}, json.dumps([canary]).encode()
    yield VAULT, {}, _message(canary, {canary: canary})
    yield VAULT, {}, json.dumps({"jsonrpc": canary, "id": canary, "method": canary}).encode()


def _client(name: str) -> dict[str, str]:
    return {"name": name, "version": name}


def _message(method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


async def forge_hints(ward: Ward) -> None:
    """The secret manager's webhook with another token, and with bodies that are none of its own."""
    canary = ward.canaries.new("what a webhook sent", plain=True)
    own = next((ward.stage.stack.layout.root / "secrets" / "feeds").iterdir())
    for name, token in ((own.name, own.read_text()), (own.name, canary.text), (canary.text, canary.text)):
        for body in (canary.secret, json.dumps({"request": {"path": canary.text}, "type": canary.text}).encode()):
            url = f"{ward.url('sync')}/v1/feeds/{name}"
            answer = await ward.http.post(url, headers={"authorization": f"Bearer {token}"}, content=body)
            ward.heard("a webhook", answer.content)
            ward.did("bad requests")


SERVICES_KNOCKED_AT = tuple(name for name in SERVICES if name != RESOLVERS[1])
