"""The HTTP edge: errors become problem documents (RFC 9457), bodies are bounded, nothing of the input is echoed."""

from __future__ import annotations

import re
from typing import Any

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import BadRequest, ChoiceNeeded, KeyfobError, TooLarge, Unauthenticated, Unavailable

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "https://keyfob.dev/problems/"
BODY_LIMIT = 64 * 1024
"""Bytes of a request body, unless a route says otherwise."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_log = structlog.get_logger(__name__)


def problem_body(error: KeyfobError) -> bytes:
    """The document for `error`; the same error gives the same bytes."""
    document: dict[str, Any] = {
        "type": TYPE_PREFIX + error.kind,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if isinstance(error, ChoiceNeeded):
        document["choices"] = list(error.choices)
    return orjson.dumps(document)


def problem_response(error: KeyfobError) -> Response:
    """The whole answer for `error`, with `Retry-After` in seconds where waiting helps."""
    headers = {}
    if isinstance(error, Unavailable):
        # Whole seconds (RFC 9110 §10.2.3), and never 0, which many clients take for at once.
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(problem_body(error), error.status, headers, MEDIA_TYPE)


def _validation_detail(error: RequestValidationError) -> str:
    """Where the input is wrong and why, without the input: pydantic's messages may quote it, its types do not."""
    places = [
        ".".join(str(part)[:40] for part in problem["loc"][:6]) + f" ({problem['type']})"
        for problem in error.errors()[:5]
    ]
    return "These parts of the request are not valid: " + "; ".join(places) + "."


def install_problem_handlers(app: FastAPI) -> None:
    """Make every failure of `app` a problem document; an unexpected one is logged by type and place only."""

    @app.exception_handler(KeyfobError)
    async def _known(_: Request, error: KeyfobError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return problem_response(BadRequest(_validation_detail(error)))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        # Words of the framework, such as Not Found: they quote nothing.
        status, title = error.status_code, str(error.detail)[:100]
        body = {"type": "about:blank", "title": title, "status": status}
        return Response(orjson.dumps(body), status, dict(error.headers or {}), MEDIA_TYPE)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        # The place is logged by the server, which the error is raised to once more.
        # The route as it is declared: what stood in its place is the caller's, and may be anything.
        route = getattr(request.scope.get("route"), "path", None)
        _log.error("request failed", route=route, error=type(error).__name__)
        return problem_response(KeyfobError())


def _refusal(body: bytes) -> BadRequest | None:
    """Why no application should parse this body; None for nearly every one.

    JSON may spell half of a surrogate pair (RFC 8259 §8.2). Python's parser lets it through, and then the text fails
    wherever it is first written: in a payload, in a digest, in the database. orjson is strict about it.
    """
    if _SURROGATE.search(body) is None:
        return None
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return BadRequest("The body is not JSON in valid Unicode.")
    return None


def _is_octets(scope: Scope) -> bool:
    return any(name == b"content-type" and value == b"application/octet-stream" for name, value in scope["headers"])


class BodyLimit:
    """ASGI middleware: a body over `limit` bytes, or with text that is none, is refused before anything parses it."""

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, bounded, and replay it to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            # Counted while it comes: an announced length may be absent or wrong.
            if len(body) > self._limit:
                error = TooLarge(f"A request body may have {self._limit} bytes.")
                await problem_response(error)(scope, receive, send)
                return
            if not message.get("more_body"):
                break
        # Octets are nobody's text: a route that takes them reads what came, byte for byte.
        refusal = None if _is_octets(scope) else _refusal(bytes(body))
        if refusal is not None:
            await problem_response(refusal)(scope, receive, send)
            return
        await self._app(scope, _replay(bytes(body), receive), send)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        # Behind the body the application hears the connection itself, or it would not notice that a caller left.
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
