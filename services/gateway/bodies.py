"""Whether a body may reach the MCP layers: JSON in UTF-8, one JSON-RPC message, not absurdly deep.

Checked here although the SDK parses again: its own answers quote what was sent, and depth is bounded there only by
the interpreter's stack.
"""

from __future__ import annotations

import re
from typing import Final

import orjson
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from shared.errors import BadRequest

DEEPEST: Final = 100
"""Nested arrays and objects; JSON Schemas of real tools stay below 20."""
# A string that never ends is one token too, and nothing backtracks (the `+` behind a quantifier): otherwise each quote
# in it would be tried as a beginning, and a few kilobytes from anybody would hold up everybody for minutes.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")


def check_message(body: bytes) -> None:
    """Raise `BadRequest`, which quotes nothing, unless `body` is one JSON-RPC message."""
    # Before parsing: the parsers behind this recurse, and end with the stack.
    if _deeper_than(body, DEEPEST):
        raise BadRequest(f"The JSON is nested more than {DEEPEST} levels deep.")
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON in UTF-8.") from None
    try:
        jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        raise BadRequest("The body is not one JSON-RPC message.") from None
    # A request with an id that is none would pass as a notification, and never be answered.
    if "method" in message and type(message.get("id", 0)) not in {str, int}:
        raise BadRequest("The request's id is neither a string nor an integer.")


def _deeper_than(body: bytes, limit: int) -> bool:
    # Nearly every body ends here, at the speed of a search.
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for token in _TOKENS.finditer(body):
        first = body[token.start()]
        if first in _OPENING:
            depth += 1
            if depth > limit:
                return True
        elif first in _CLOSING:
            depth -= 1
    return False
