"""One span for each HTTP request, under the caller's `traceparent` (W3C Trace Context).

What a request causes (outbox, messages, answers) hangs under it, so that one trace reaches from the caller to the
last consumer. A span's name and attributes hold the route as it is declared, never what stood in its place.
"""

from __future__ import annotations

from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.telemetry import span


class Traced:
    """ASGI middleware: put it outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application inside a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with span(f"HTTP {scope['method']}", parent=_traceparent(scope), kind=SpanKind.SERVER) as current:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    current.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, told)
            # Known only now that the router has been there. The path itself is never a name: people's names stand in
            # it.
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                current.update_name(f"HTTP {scope['method']} {route}")


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            # Which reads any byte: what makes no sense as a trace is ignored later, and fails nobody's request.
            text: str = value.decode("latin-1")
            return text
    return None
