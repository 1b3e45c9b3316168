"""The MCP server that agents talk to: every request goes to the upstream of its own seat, results come back as sent.

Results travel as the upstream wrote them; the SDK checks them against the revision that each side speaks, and shapes
them for the agent's. Requests that a server would send to its client (sampling, elicitation, roots) are not offered
to upstreams: an upstream may serve several sessions of its subject, and it could not be told which one is meant.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Final

import mcp_types as types
import structlog
from mcp.client.session import ClientSession
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry import trace
from pydantic import RootModel, ValidationError

from services.gateway.client.resolving import Refused
from services.gateway.refusals import REFUSED, refusal_error
from services.gateway.seats import Claim, Seats
from services.gateway.upstream import Ended
from shared import telemetry
from shared.errors import KeyfobError

CLAIM: Final = "keyfob.claim"
"""Where the edge leaves the request's `Claim` in its ASGI scope."""
ENVELOPE_PREFIX: Final = "io.modelcontextprotocol/"
CONNECTION_CLOSED: Final = "Connection closed"
"""What the SDK says itself when a server is gone."""
PROGRESS_TOKEN: Final = "progressToken"  # noqa: S105 - a name in MCP

PARAMS: Final[Mapping[str, type[types.RequestParams]]] = {
    "ping": types.RequestParams,
    "tools/list": types.PaginatedRequestParams,
    "tools/call": types.CallToolRequestParams,
    "prompts/list": types.PaginatedRequestParams,
    "prompts/get": types.GetPromptRequestParams,
    "resources/list": types.PaginatedRequestParams,
    "resources/templates/list": types.PaginatedRequestParams,
    "resources/read": types.ReadResourceRequestParams,
    "completion/complete": types.CompleteRequestParams,
}
"""What is passed on. Everything else is answered as unknown."""

_NO_CACHE: Final = CacheHint(ttl_ms=0, scope="private")
_CACHE_HINTS: Final[Mapping[CacheableMethod, CacheHint]] = {
    "tools/list": _NO_CACHE,
    "prompts/list": _NO_CACHE,
    "resources/list": _NO_CACHE,
    "resources/templates/list": _NO_CACHE,
    "resources/read": _NO_CACHE,
    "server/discover": _NO_CACHE,
}

_log = structlog.get_logger(__name__)

Context = ServerRequestContext[Any, Any]


class _Raw(types.Request[dict[str, Any] | None, str]):
    """A request as the agent sent it."""


class _Result(RootModel[dict[str, Any]]):
    """A result as the upstream sent it."""


class Proxy:
    """Builds the SDK's server around the seats."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats

    def server(self) -> Server[Any]:
        """One server for all agents: whose upstream is meant stands in each request."""
        server: Server[Any] = Server(
            "keyfob-gateway",
            version="0.1.0",
            cache_hints=_CACHE_HINTS,
            # The upstream checks its own tools' headers; without this the SDK would list all tools at every call.
            get_tool_input_schema=lambda _: None,
        )
        # The SDK's own spans carry error texts, and those may hold patients' data.
        server.middleware[:] = [self._in_span, self._introduce]
        for method, params in PARAMS.items():
            server.add_request_handler(method, params, self._forward)
        server.add_request_handler("server/discover", types.RequestParams, self._discover)
        return server

    async def _forward(self, ctx: Context, _: types.RequestParams) -> dict[str, Any]:
        params = _passed_on(ctx.params)
        async with self._upstream(ctx, json.dumps(params or {}).encode()) as session:
            request = _Raw(method=ctx.method, params=params)
            wants_progress = PROGRESS_TOKEN in ((ctx.params or {}).get("_meta") or {})
            # Here only: our own span around it stays, and knows nothing of what is said.
            with _untraced():
                answer = await session.send_request(
                    request, _Result, progress_callback=ctx.session.report_progress if wants_progress else None
                )
                # Required by the newest revision, unknown to those before: the SDK keeps or drops it per agent.
                return {"resultType": "complete", **answer.root}

    async def _discover(self, ctx: Context, _: types.RequestParams) -> types.DiscoverResult:
        async with self._upstream(ctx) as session:
            return types.DiscoverResult(
                supported_versions=list(MODERN_PROTOCOL_VERSIONS),
                capabilities=_capabilities(session),
                instructions=session.instructions,
            )

    async def _introduce(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Let the handshake show the upstream's own name, abilities and instructions."""
        # The SDK negotiates the revision for its own leg; only what the server says about itself is exchanged.
        result = await call_next(ctx)
        if ctx.method != "initialize" or not isinstance(result, dict):
            return result
        async with self._upstream(ctx) as session:
            own = {"capabilities": _capabilities(session), "serverInfo": session.server_info}
            shown = {
                key: model.model_dump(by_alias=True, mode="json", exclude_none=True)
                for key, model in own.items()
                if model
            }
            instructions = {"instructions": session.instructions} if session.instructions else {}
            return {**result, **shown, **instructions}

    async def _in_span(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """A span that knows the method and nothing of what was said."""
        parent = (ctx.meta or {}).get("traceparent")
        with telemetry.span(
            f"mcp {ctx.method}" if ctx.method in PARAMS else "mcp", parent=parent if isinstance(parent, str) else None
        ):
            return await call_next(ctx)

    @asynccontextmanager
    async def _upstream(self, ctx: Context, arguments: bytes = b"") -> AsyncIterator[ClientSession]:
        """The session of this request's seat; every failure becomes an error that is safe to show.

        `arguments` are what the agent says to the server, as JSON.
        """
        # From the request and not from the session: each request stands on the token that it brings itself.
        claim = ctx.request.scope.get(CLAIM) if ctx.request is not None else None
        if not isinstance(claim, Claim):
            raise MCPError(types.INTERNAL_ERROR, "The request was not authenticated.")
        try:
            async with self._seats.call(claim, arguments) as session:
                yield session
        except (KeyfobError, Refused) as refusal:
            raise refusal_error(refusal) from None
        except Ended:
            raise MCPError(REFUSED, "Access to this server has just ended.") from None
        except ValidationError:
            # Not the agent's fault, which is how the SDK would put it; the text may quote the result.
            _log.warning("upstream broke the protocol", method=ctx.method)
            raise MCPError(types.INTERNAL_ERROR, "The MCP server's answer breaks the protocol.") from None
        except MCPError as error:
            # To the agent it is one more refusal, with a way on; the SDK's words would end its session.
            # By its words too: servers use that code for errors of their own.
            if error.code == types.CONNECTION_CLOSED and error.message == CONNECTION_CLOSED:
                raise MCPError(REFUSED, "The MCP server has just ended; ask again.") from None
            raise


def _passed_on(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The agent's parameters without what belongs to the leg between agent and gateway."""
    if params is None:
        return None
    passed = dict(params)
    meta = passed.pop("_meta", None)
    if isinstance(meta, Mapping):
        kept = {
            key: value for key, value in meta.items() if key != PROGRESS_TOKEN and not key.startswith(ENVELOPE_PREFIX)
        }
        if kept:
            passed["_meta"] = kept
    return passed


def _capabilities(session: ClientSession) -> types.ServerCapabilities:
    """The upstream's abilities, as far as they are passed on."""
    own = session.server_capabilities or types.ServerCapabilities()
    return types.ServerCapabilities(
        # Nothing that is announced by the server reaches an agent, so no agent may be promised it.
        tools=types.ToolsCapability(list_changed=False) if own.tools else None,
        prompts=types.PromptsCapability(list_changed=False) if own.prompts else None,
        resources=types.ResourcesCapability(list_changed=False, subscribe=False) if own.resources else None,
        completions=own.completions,
    )


def _untraced() -> AbstractContextManager[trace.Span]:
    """The SDK's client makes spans with error texts: below a parent that is not sampled it records none."""
    current = trace.get_current_span().get_span_context()
    silent = trace.SpanContext(current.trace_id, current.span_id, is_remote=False, trace_flags=trace.TraceFlags(0))
    return trace.use_span(trace.NonRecordingSpan(silent))
