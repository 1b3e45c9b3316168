"""How the gateway says no: a problem document (RFC 9457), which an MCP client can read as a JSON-RPC error too.

MCP clients accept `application/json` and event streams, and show their agent only what is a JSON-RPC error. They get
the same document with the members `jsonrpc`, `id` and `error` added (extension members in the sense of RFC 9457,
section 3.2), so that the agent reads why, and which contexts it may choose from. Everybody else gets
`application/problem+json`; what a resolver refused then has exactly the resolver's bytes. The same refusal always
has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from mcp.shared.exceptions import MCPError
from starlette.responses import Response

from services.gateway.client.resolving import Refused
from shared.errors import KeyfobError, Unavailable
from shared.problems import MEDIA_TYPE, problem_body

REFUSED: Final = -32050
"""JSON-RPC code, from the range that is left to implementations."""
UNAUTHORIZED: Final = 401


def refusal_response(refusal: KeyfobError | Refused, headers: Iterable[tuple[bytes, bytes]]) -> Response:
    """The whole answer to a request with these headers."""
    # A resolver's bytes as they came: built anew, absent and not yours might differ in a blank.
    body = refusal.body if isinstance(refusal, Refused) else problem_body(refusal)
    extra = {}
    if (retry_after := _retry_after(refusal)) is not None:
        extra["Retry-After"] = retry_after
    # RFC 9110, section 15.5.2: a 401 must name a scheme.
    if refusal.status == UNAUTHORIZED:
        extra["WWW-Authenticate"] = "Bearer"
    if not _reads_json_rpc_only(headers):
        return Response(body, refusal.status, extra, MEDIA_TYPE)
    document = orjson.loads(body)
    error = {"code": REFUSED, "message": refusal.detail, "data": document}
    # No id: refused before anybody read which request it was.
    merged = {**document, "jsonrpc": "2.0", "id": None, "error": error}
    return Response(orjson.dumps(merged), refusal.status, extra, "application/json")


def refusal_error(refusal: KeyfobError | Refused) -> MCPError:
    """The same inside a session."""
    body = refusal.body if isinstance(refusal, Refused) else problem_body(refusal)
    data: Mapping[str, Any] = orjson.loads(body)
    return MCPError(REFUSED, refusal.detail, data)


def _retry_after(refusal: KeyfobError | Refused) -> str | None:
    match refusal:
        case Refused():
            return refusal.retry_after
        case Unavailable():
            return str(max(1, round(refusal.retry_after_s)))
        case _:
            return None


def _reads_json_rpc_only(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    accepted = b",".join(value for name, value in headers if name == b"accept").lower()
    return b"text/event-stream" in accepted and b"application/problem+json" not in accepted and b"*/*" not in accepted
