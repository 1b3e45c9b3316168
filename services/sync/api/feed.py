"""The change feed's webhook: `POST /v1/feeds/<source name>`, one audit entry as JSON, with the feed's own secret.

The vault waits for our answer while its own client waits for the vault (an HTTP audit device is synchronous). So
this is plain ASGI in front of everything else, and answers 202 as soon as the entry is in memory: before any look at
the database, the broker or the vault.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.sync.domain.naming import is_source_name
from shared.config import Misconfigured, read_secret_file
from shared.errors import BadRequest, KeyfobError, TooLarge, Unauthenticated
from shared.problems import problem_response

PREFIX: Final = "/v1/feeds/"
LIMIT: Final = 512 * 1024
"""Bytes of one entry. A mutation's is a few KiB; lists can be long, and are elided by the vault if it is told to."""

Hear = Callable[[str, Mapping[str, Any], str | None], None]
"""Takes (source name, entry, traceparent) in; returns at once, and does nothing for a source that is not connected."""


class FeedSecrets:
    """The secrets of the feeds: files `<source name>`, mode 0600, in one directory; read again when they change."""

    def __init__(self, directory: Path) -> None:
        """Read from `directory`."""
        self._directory = directory
        self._known: dict[str, tuple[tuple[int, int], bytes]] = {}

    def are_right(self, source: str, presented: bytes) -> bool:
        """Whether `presented` is the feed's secret, compared in constant time. There may be none: then nothing is."""
        expected = self._read(source) if is_source_name(source) else None
        # Compared in any case, so that a source that is there takes as long as one that is not.
        same = hmac.compare_digest(expected or b"\0", presented)
        return same and expected is not None

    def _read(self, source: str) -> bytes | None:
        path = f"{self._directory}/{source}"
        try:
            status = os.stat(path)  # noqa: PTH116 - for every entry: a Path costs ten times as much
            # The inode too: a file that was replaced within one tick of the clock is another file.
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._known.get(source)
            if known is None or known[0] != stamp:
                known = (stamp, read_secret_file(Path(path)).encode())
                self._known[source] = known
        except (OSError, Misconfigured):
            return None
        # An empty file is no secret: it would be presented by whoever presents nothing.
        return known[1] or None


class FeedReceiver:
    """ASGI application in front of another one: takes what comes for feeds, and passes everything else on."""

    def __init__(self, app: ASGIApp, *, secrets: FeedSecrets, hear: Hear, limit: int = LIMIT) -> None:
        """Pass entries on to `hear`; `limit` in bytes."""
        self._app = app
        self._secrets = secrets
        self._hear = hear
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX) or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            await self._take(scope, receive)
            response = Response(status_code=202)
        except KeyfobError as error:
            response = problem_response(error)
        await response(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive) -> None:
        source, headers = scope["path"].removeprefix(PREFIX), Headers(scope=scope)
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        # Before the body is read: a stranger gets to send us headers and nothing more.
        if not self._secrets.are_right(source, presented.strip().encode()) or scheme.lower() != "bearer":
            raise Unauthenticated("The feed's secret is missing or wrong.")
        body = await _read(receive, self._limit)
        try:
            entry = orjson.loads(body)
        except orjson.JSONDecodeError:
            entry = None
        # What else it says is for `hint_of`, which takes any object and ignores what it does not know.
        if not isinstance(entry, dict):
            raise BadRequest("A feed's entry is a JSON object in UTF-8.")
        self._hear(source, entry, headers.get("traceparent"))


async def _read(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        # Bounded as it comes, whatever Content-Length says.
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge(f"A feed's entry may have {limit} bytes.")
        if not message.get("more_body"):
            return bytes(body)


OPENAPI_PATH: Final[dict[str, Any]] = {
    "post": {
        "summary": "One entry of the source's audit log, as a hint that something changed",
        "operationId": "hear_feed",
        "parameters": [{"name": "source_name", "in": "path", "required": True, "schema": {"type": "string"}}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {
            "202": {"description": "Taken in; nothing was looked at yet"},
            "400": {"description": "Not a JSON object"},
            "401": {"description": "The feed's secret is missing or wrong"},
            "413": {"description": "Longer than any entry"},
        },
    }
}
"""What the published OpenAPI says of the webhook, which FastAPI does not see."""
