"""The routes of the profile `https`, on a listener of their own where every peer has proved a client certificate.

Each handler asks anew who the peer is: by the certificate of its connection, and what policy says of it now. A
connection outlives a ban, and so would whoever was looked at only once.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.resolver.api import answered_call, bearer_token, traceparent_of
from services.resolver.callers import Instances
from services.resolver.case import Call
from services.resolver.https_only.inbox import Inbox
from services.resolver.https_only.streams import EventStream, Streams
from services.resolver.state import Knowledge
from shared import delivery
from shared.delivery.certificates import PeerCertificate, read_peer
from shared.delivery.https_only import PostedReceipt
from shared.delivery.messages import ResolveAnswer, ResolveRequest, parse_request
from shared.errors import AssertionInvalid, BadRequest, NotFresh, Unavailable
from shared.health import Readiness
from shared.mutual_tls import Peer, peer_of
from shared.serving import application

TITLE: Final = "Keyfob resolver, for gateways that use HTTPS only"
LARGEST_OFFSET: Final = 2**63 - 1
LONGEST_OFFSET: Final = 19
"""Digits."""
BODY_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the routes need."""

    knowledge: Knowledge
    instances: Instances
    resolve: Callable[[Call], Awaitable[bytes]]
    streams: Streams
    inbox: Inbox

    def admit(self, request: Request) -> PeerCertificate:
        """Whose certificate the connection proved, if that instance may act now; else `AssertionInvalid`."""
        # Before anybody is refused: a replica that knows nothing yet would call everyone a stranger.
        if self.knowledge.stale() is not None:
            raise NotFresh
        certificate = certificate_of(request)
        self.instances.admit(certificate, self.knowledge.snapshot().policy)
        return certificate

    def may_act(self, certificate: PeerCertificate) -> bool:
        """Whether that instance still may, as far as this replica knows."""
        try:
            self.instances.admit(certificate, self.knowledge.snapshot().policy)
        except AssertionInvalid:
            return False
        return True


def certificate_of(request: Request) -> PeerCertificate:
    """The certificate of the connection, which its listener verified; whom it names is not looked at yet."""
    peer = peer_of(request.scope)
    found = None if peer is None else read_peer(peer.certificate)
    if found is None:
        raise AssertionInvalid("This needs the client certificate of an instance.")
    return found


class BodyInTime:
    """ASGI middleware: whoever sends a body more slowly than `BODY_WITHIN_S` has left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the body on, as long as it comes."""
        deadline = asyncio.get_running_loop().time() + BODY_WITHIN_S
        whole = False

        async def in_time() -> Message:
            nonlocal whole
            # Behind the body there is only the end of the connection, which nobody may hurry.
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}
            whole = not message.get("more_body")
            return message

        await self._app(scope, in_time, send)


def https_only(door: Door, readiness: Readiness) -> FastAPI:
    """The application. Its lifespan is its replica's."""
    app = application(TITLE, lifespan=nullcontext, readiness=readiness)
    # The last one added is the first one asked, before whatever waits for the whole body.
    app.add_middleware(BodyInTime)
    _add_resolve(app, door)
    _add_notices(app, door)
    _add_receipts(app, door)
    return app


def _add_resolve(app: FastAPI, door: Door) -> None:
    @app.post(
        "/v1/resolve",
        summary="All fields of one server for the subject of the token, as JSON with values",
        openapi_extra=_body(ResolveRequest),
        responses={200: {"model": ResolveAnswer}},
        response_class=Response,
    )
    async def post_resolve(request: Request) -> Response:
        # Not asked here whether it may: that answer belongs into the record of the resolve, also when it is no.
        certificate = certificate_of(request)
        asked = delivery.Request(
            method="POST",
            target=request.url.path,
            # Nothing is compared with it: a certificate proves the connection, and no request is signed.
            audience="",
            body=await request.body(),
            token=bearer_token(request.scope),
        )
        call = Call(asked, certificate, traceparent_of(request.scope))
        answer = await answered_call(door.resolve, call)
        return Response(answer, media_type="application/json", headers={"Cache-Control": "no-store"})


def _add_notices(app: FastAPI, door: Door) -> None:
    @app.get(
        "/v1/notices",
        summary="Notices and ticks as server-sent events; Last-Event-ID goes on behind an offset",
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def get_notices(request: Request) -> Response:
        certificate = door.admit(request)
        place = _place(request)
        if (trouble := door.streams.feed.trouble) is not None:
            raise Unavailable(f"Notices can't be heard here now: {trouble}")
        frames = door.streams.frames(certificate.instance_id, place, lambda: door.may_act(certificate))
        return EventStream(frames, abort=_peer(request).abort)


def _add_receipts(app: FastAPI, door: Door) -> None:
    @app.post(
        "/v1/receipts",
        status_code=204,
        summary="How far notices were applied, and what is gone; answered once it is durable",
        openapi_extra=_body(PostedReceipt),
        response_class=Response,
    )
    async def post_receipt(request: Request) -> Response:
        certificate = door.admit(request)
        posted = parse_request(await request.body(), PostedReceipt)
        await door.inbox.take(certificate.instance_id, posted)
        return Response(status_code=204)


def _place(request: Request) -> int | None:
    """The offset behind which to go on; None where none is named."""
    said = request.headers.getlist("last-event-id")
    if not said or said == [""]:
        return None
    text = said[0]
    # ASCII digits only: Python also reads other scripts', spaces and underscores.
    digits = text.isascii() and text.isdigit() and len(text) <= LONGEST_OFFSET
    if len(said) > 1 or not digits or int(text) > LARGEST_OFFSET:
        raise BadRequest("Last-Event-ID must be the id of an event that was received.")
    return int(text)


def _peer(request: Request) -> Peer:
    peer = peer_of(request.scope)
    if peer is None:
        raise AssertionInvalid
    return peer


def _body(model: Any) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
