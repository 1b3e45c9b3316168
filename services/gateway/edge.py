"""The HTTP edge of MCP: who asks, for what, and whether there is a seat for it, before the SDK sees a request.

A session belongs to the subject and the target that opened it. The SDK compares them and answers 404 to anybody
else, as if the session did not exist.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway.bodies import check_message
from services.gateway.client.resolving import Refused, Wanted
from services.gateway.proxy import CLAIM
from services.gateway.refusals import refusal_response
from services.gateway.seats import Caller, Claim, Seats
from services.gateway.sessions import Sessions
from services.gateway.targets import Headers, token_of, wanted_of
from shared import telemetry
from shared.errors import BadRequest, KeyfobError, TooLarge

METHODS: Final = frozenset({"GET", "POST", "DELETE"})
SESSION_ID: Final = b"mcp-session-id"
BAD_REQUEST: Final = 400

_log = structlog.get_logger(__name__)


class MethodRefused(BadRequest):
    """Raised for a method that MCP does not use."""

    kind = "method-not-allowed"
    status = 405
    title = "Method not allowed"


class Edge:
    """The ASGI application below `/mcp`."""

    def __init__(self, seats: Seats, mcp: ASGIApp, *, body_limit: int, session_limit: int) -> None:
        self._seats = seats
        self._mcp = mcp
        self._body_limit = body_limit
        self._sessions = Sessions(session_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate, check the body, take a seat, hand over; or refuse."""
        if scope["type"] != "http":
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        with telemetry.span("agent request", parent=_header(headers, b"traceparent")):
            try:
                prepared = await self._prepare(scope, receive)
            except (KeyfobError, Refused) as refusal:
                await refusal_response(refusal, headers)(scope, receive, send)
                return
            except Exception as error:  # noqa: BLE001 - the last resort of an edge: no text of it may get out
                _log.error("request failed", error=type(error).__name__)
                await refusal_response(KeyfobError(), headers)(scope, receive, send)
                return
            if prepared is not None:
                await self._mcp(scope, prepared, self._watching(scope, send))

    async def _prepare(self, scope: Scope, receive: Receive) -> Receive | None:
        if scope["method"] not in METHODS:
            raise MethodRefused("MCP uses GET, POST and DELETE.")
        # Headers before the body: who brings no token does not get to send megabytes.
        claim = Claim(token_of(scope["headers"]), wanted_of(scope["raw_path"], scope["headers"]))
        body = await _read(receive, self._body_limit)
        if body is None:
            return None
        if scope["method"] == "POST":
            # Before a seat: for rubbish nobody is given a value.
            check_message(body)
            seat = await self._seats.seat(claim)
            # For good: this agent may come back without a session, so the end of another one's is not the end of its
            # use.
            seat.stateless |= _version(scope) in MODERN_PROTOCOL_VERSIONS
            caller = seat.running.load.caller
        else:
            # Listening and closing need no value, and must not start a server.
            caller = await self._seats.caller(claim)
        scope["user"] = _owner(caller, claim.wanted)
        scope[CLAIM] = claim
        return _replaying(body, receive)

    def _watching(self, scope: Scope, send: Send) -> Send:
        """Learn from the SDK's answer which session was opened or closed."""

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < BAD_REQUEST:
                self._learn(scope, message.get("headers", ()))
            await send(message)

        return watch

    def _learn(self, scope: Scope, answered: Headers) -> None:
        asked, given = (_header(headers, SESSION_ID) for headers in (scope["headers"], answered))
        # Only what the SDK answered counts: a session that it refused was never opened.
        if scope["method"] == "POST" and asked is None and given is not None:
            self._sessions.opened(given, scope[CLAIM].key)
        elif scope["method"] == "DELETE" and asked is not None:
            key = self._sessions.closed(asked)
            if key is not None:
                self._seats.vacate(key)


def _header(headers: Headers, name: bytes) -> str | None:
    return next((value.decode("latin-1") for one, value in headers if one.lower() == name), None)


def _version(scope: Scope) -> str | None:
    return _header(scope["headers"], b"mcp-protocol-version")


def _owner(caller: Caller, wanted: Wanted) -> AuthenticatedUser:
    """Whom the SDK ties a session to: subject, identity provider and target."""
    # With the target: a session opened for one context must not answer for another.
    target = repr((wanted.server, wanted.context, wanted.choices))
    return AuthenticatedUser(
        AccessToken(token="", client_id=target, scopes=[], subject=caller.subject, claims={"iss": caller.idp_id})
    )


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body; `TooLarge` beyond `limit`, None if the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(f"A request body may have {limit} bytes.")
        if not message.get("more_body"):
            return bytes(body)


def _replaying(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
