"""Whoever reads a service's HTTP interface without a network: the token is the name of the reader's group."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI

from shared.administration import AdminGuard
from shared.config import AdminSettings
from shared.errors import TokenInvalid
from shared.health import Readiness
from shared.identity import TokenVerifier
from shared.identity.tokens import Subject
from shared.serving import application
from tests.fakes.asgi import Reply, call

AUDITOR = "keyfob-auditors"
GROUPS = {"keyfob-admins": 200, "keyfob-operators": 200, AUDITOR: 200, "nurses": 403, "": 401, "unknown": 401}
"""Group → the answer to a request for something that is there."""


class _Verifier:
    async def verify(self, token: str) -> Subject:
        if token not in GROUPS or token == "unknown":
            raise TokenInvalid
        return Subject("idp/administrators", "ada", frozenset({token}), 2e9, b"")


def guard() -> AdminGuard:
    """Roles by group, as everywhere."""
    return AdminGuard(cast("TokenVerifier", _Verifier()), AdminSettings())


class Reader:
    """Sends requests to one router, behind everything that each service puts in front of it."""

    def __init__(self, router: APIRouter) -> None:
        self.app: FastAPI = application("test", lifespan=nullcontext, readiness=Readiness())
        self.app.include_router(router)

    async def reply(
        self, path: str, *, group: str = AUDITOR, method: str = "GET", body: object = None, **query: Any
    ) -> Reply:
        target = f"{path}?{urlencode(query)}" if query else path
        headers = [("Authorization", f"Bearer {group}")] if group else []
        if body is None:
            return await call(self.app, method, target, headers=headers)
        headers.append(("Content-Type", "application/json"))
        return await call(self.app, method, target, headers=headers, body=json.dumps(body).encode())

    async def get(self, path: str, **query: Any) -> Any:
        reply = await self.reply(path, **query)
        assert reply.status == 200, (reply.status, reply.body)
        return json.loads(reply.body)
