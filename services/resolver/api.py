"""`POST /v1/resolve`. A plain ASGI route answers it: FastAPI's machinery would cost as much as the decision itself.

The same endpoint is declared to FastAPI, which serves everything else and describes it all as OpenAPI.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.resolver.case import Call
from shared.delivery import Request
from shared.delivery.assertion import HEADER
from shared.delivery.envelope import MEDIA_TYPE
from shared.delivery.messages import LARGEST_BODY, ResolveRequest
from shared.errors import AssertionInvalid, BadRequest, KeyfobError, TokenInvalid, TooLarge
from shared.problems import problem_response

PATH: Final = "/v1/resolve"
_ASSERTION_HEADER: Final = HEADER.lower().encode()
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_ANSWER_HEADERS: Final = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]

_log = structlog.get_logger(__name__)

Resolve = Callable[[Call], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class ResolveRoute:
    """Answers `PATH` itself and leaves everything else to `rest`."""

    resolve: Resolve
    audience: str
    rest: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        # Exactly the path: a trailing slash or another method is for the rest, which answers 404 and 405.
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.rest(scope, receive, send)
            return
        try:
            answer = await answered(self.resolve, self.audience, scope, await _body(receive))
        except KeyfobError as error:
            await problem_response(error)(scope, receive, send)
            return
        headers = [*_ANSWER_HEADERS, (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def answered(resolve: Resolve, audience: str, scope: Scope, body: bytes) -> bytes:
    """The sealed answer to one request; only `KeyfobError` comes out, whatever happened."""
    return await answered_call(resolve, _call(scope, audience, body))


async def answered_call(resolve: Resolve, call: Call) -> bytes:
    """The answer to one call; only `KeyfobError` comes out, whatever happened."""
    try:
        return await resolve(call)
    except KeyfobError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge: the type is all that may be told
        _log.error("resolve failed", error=type(error).__name__)
        raise KeyfobError from None


async def _body(receive: Receive) -> bytes:
    """The whole body, bounded."""
    message = await receive()
    body: bytes = message.get("body", b"")
    # Bounded while it is read: a length that a header claims is nobody's promise.
    while message.get("more_body") and len(body) <= LARGEST_BODY:
        message = await receive()
        body += message.get("body", b"")
    if len(body) > LARGEST_BODY:
        raise TooLarge(f"A request body may have {LARGEST_BODY} bytes.")
    return body


def _call(scope: Scope, audience: str, body: bytes) -> Call:
    headers, token = _headers(scope), bearer_token(scope)
    assertion = _text(headers.get(_ASSERTION_HEADER, b""))
    if not assertion:
        raise AssertionInvalid(f"This needs an assertion in the {HEADER} header.")
    request = Request(method=scope["method"], target=_target(scope), audience=audience, body=body, token=token)
    return Call(request, assertion, _traceparent(headers))


def bearer_token(scope: Scope) -> str:
    """The subject's token; `TokenInvalid` where there is none."""
    scheme, _, token = _text(_headers(scope).get(b"authorization", b"")).partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenInvalid("This needs an access token in the Authorization header.")
    return token


def traceparent_of(scope: Scope) -> str | None:
    """The caller's trace context, if it is one."""
    return _traceparent(_headers(scope))


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """Header values by lower-case name. What proves somebody's identity must stand there once."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in {b"authorization", _ASSERTION_HEADER}:
            raise BadRequest("A credential stands in two headers of one name.")
        headers[name] = value
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode("ascii").strip()
    except UnicodeDecodeError:
        raise BadRequest("A header holds characters outside ASCII.") from None


def _target(scope: Scope) -> str:
    """Path and query exactly as sent: the assertion covers them."""
    # Not the decoded path: `%2e` and `.` would be one, and the signature covers only one of them.
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")


def _traceparent(headers: dict[bytes, bytes]) -> str | None:
    # Anything else is dropped: it would stand in records and headers as the caller wrote it.
    sent = headers.get(b"traceparent", b"").decode("latin-1")
    return sent if _TRACEPARENT.fullmatch(sent) else None


def declare(app: FastAPI, resolve: Resolve, audience: str) -> None:
    """Let `app` know, describe and, if it is ever asked, answer the endpoint."""

    async def post_resolve(request: HttpRequest) -> Response:
        answer = await answered(resolve, audience, request.scope, await request.body())
        return Response(answer, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    app.add_api_route(
        PATH,
        post_resolve,
        methods=["POST"],
        summary="All fields of one server for the subject of the token, sealed to the instance",
        response_class=Response,
        responses=_RESPONSES,
        openapi_extra=_EXTRA,
    )


_EXTRA: Final[dict[str, Any]] = {
    "security": [{"bearer": []}],
    "parameters": [
        {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}},
        {"name": HEADER, "in": "header", "required": True, "schema": {"type": "string"}},
        {"name": "traceparent", "in": "header", "required": False, "schema": {"type": "string"}},
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ResolveRequest.model_json_schema()}},
    },
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Sealed to the instance and signed", "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}},
    401: {"description": "The token or the assertion is not valid"},
    404: {"description": "Absent or not yours: the two are byte for byte the same"},
    409: {"description": "Several answers are allowed; `choices` names them"},
    413: {"description": "The body is too large"},
    503: {"description": "Not able to answer safely now: stale, not recorded, or the source is away"},
}
