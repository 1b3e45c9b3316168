"""Agents at work: servers that tell what they were given, that crash with it, that never start."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import product

from starlette.responses import JSONResponse, PlainTextResponse, Response

from services.dev.demo.agents import Agent
from services.dev.demo.stage import GATEWAYS
from tests.fakes.stdio_server import ENCODINGS
from tests.leaks.canaries import Canary
from tests.leaks.ward import FAILING, FIELD, FILE, HTTP, MAPPED, OWN, PROFILE, SHARED, UNSURE, VAULT, Call, Ward

_WAYS_OUT = ("result", "structure", "tool error", "error", "stderr")
ECHOING = (OWN, SHARED, VAULT, MAPPED, FILE, UNSURE)
_ECHOES: tuple[Call, ...] = tuple(
    ("echo", {"where": where, "as": form}) for where, form in product(_WAYS_OUT, ENCODINGS)
)


async def arrive(ward: Ward) -> None:
    """Each value is used by exactly the server that it is for: digests tell, which nobody redacts."""
    nora = ward.enlist("nora", [GROUP_OF_NORA, "keyfob-admins"])
    assert await ward.enter(nora, OWN) in {200, 201}
    assert await ward.enter(nora, SHARED, profile=PROFILE) in {200, 201}
    for server, gateway in product(ECHOING, GATEWAYS):
        name, file = ("TOKEN_FILE", True) if server == FILE else (FIELD, False)
        (said,) = await ward.talk(nora, server, gateway, ("given", {"name": name, "file": file}))
        meant = [one for one in ward.canaries.known.values() if _is_for(one, server, gateway)]
        assert [one for one in meant if _described(one) in said], f"{server} at {gateway} was given its value"


GROUP_OF_NORA = "staff-ward"


def _is_for(canary: Canary, server: str, gateway: str) -> bool:
    return server in canary.servers and (not canary.gateways or gateway in canary.gateways)


def _described(canary: Canary) -> str:
    return f"{len(canary.secret)} {hashlib.sha256(canary.secret).hexdigest()}"


async def be_told(ward: Ward, nora: Agent) -> None:
    """Every server says its environment in each way and each encoding, then dies of it."""
    last: tuple[Call, ...] = (("write down", {}), ("hand on", {}), ("die", {}))
    await asyncio.gather(
        *(ward.talk(nora, server, GATEWAYS[n % 2], *_ECHOES, *last) for n, server in enumerate(ECHOING))
    )
    # Once more as somebody new, who has everything resolved for it and a server that has died before.
    await asyncio.gather(*(ward.talk(ward.somebody(), server, GATEWAYS[0], ("die", {})) for server in (VAULT, MAPPED)))


async def never_start(ward: Ward) -> None:
    """A definition whose program tells all and ends, before it has answered anything."""
    for gateway in GATEWAYS:
        (said,) = await ward.talk(ward.somebody(), FAILING, gateway, ("echo", {"where": "result", "as": "plain"}))
        assert said.startswith("failed: ")


async def call_over_http(ward: Ward, nora: Agent) -> None:
    """A server elsewhere that sends back the headers that it was called with, as answer and as failure."""
    await ward.talk(nora, HTTP, GATEWAYS[0], ("echo", {}), ("headers", {}))
    assert [one for one in ward.teller.seen if "bearer" in one.get("authorization", "").lower()], "it was called"
    for make in _refusals(ward):
        ward.teller.answers.append(make)
        await ward.talk(nora, HTTP, GATEWAYS[1], ("echo", {}))
        ward.teller.answers.clear()


def _refusals(ward: Ward) -> list[Response]:
    seen = ward.teller.seen[-1]
    said = seen.get("authorization", "")
    error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": said, "data": seen}}
    return [
        *(JSONResponse(error, status) for status in (200, 400, 401, 404, 500)),
        PlainTextResponse(said, 503, headers={"WWW-Authenticate": f'Bearer realm="{said}"', "X-Debug": said}),
        Response(said, 302, headers={"Location": f"http://elsewhere.test/{said}"}),
        Response(said, 200, media_type="text/event-stream"),
        Response(said, 200, media_type="application/json"),
    ]
