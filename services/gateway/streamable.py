"""MCP over streamable HTTP to a server elsewhere: credentials go into each request, and nowhere but to its own URL.

Redirects are not followed, not even within the server's origin: a definition names one place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable

CONNECT_S: Final = 10.0
READ_S: Final = 300.0
"""A tool may think for minutes before it says a word."""
UNAUTHORIZED: Final = 401
NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Credential:
    """One header of each request: `prefix` and the value."""

    header: str
    prefix: str
    value: SecretBytes

    def check(self) -> None:
        """Raise `Unavailable` for a value that no header can carry (RFC 9110, section 5.5), without quoting it."""
        with self.value.reveal() as view:
            fits = all(0x20 < octet < 0x7F or octet in {0x20, 0x09} or octet >= 0x80 for octet in view)  # noqa: PLR2004
        if not fits:
            raise Unavailable("A value has characters that an HTTP header can't carry.")

    def text(self) -> bytes:
        """The header's value."""
        with self.value.reveal() as view:
            return self.prefix.encode() + bytes(view)


class Injecting(httpx2.AsyncBaseTransport):
    """Adds credentials on the way out, takes `Location` away on the way back, and tells when the server is done."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        url: str,
        credentials: tuple[Credential, ...],
        on_gone: Callable[[], None],
    ) -> None:
        self._inner = inner
        self._url = httpx2.URL(url)
        self._credentials = credentials
        self._on_gone = on_gone

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request. The credential is added after everything that could log or repeat it."""
        if request.url != self._url:
            message = "not the place that the definition names"
            raise httpx2.RequestError(message, request=request)
        headers = [
            *request.headers.raw,
            *((credential.header.encode(), credential.text()) for credential in self._credentials),
        ]
        sent = httpx2.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        response = await self._inner.handle_async_request(sent)
        if _is_over(request, response):
            self._on_gone()
        response.headers.pop("location", None)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _is_over(request: httpx2.Request, response: httpx2.Response) -> bool:
    """Whether credential or session are not accepted any more: the next call starts afresh, with a new resolve."""
    if response.status_code == UNAUTHORIZED:
        return True
    return response.status_code == NOT_FOUND and request.method == "POST" and "mcp-session-id" in request.headers


@asynccontextmanager
async def connect(
    url: str, credentials: tuple[Credential, ...], *, on_silence: Callable[[], None]
) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a session with the server at `url`."""
    for credential in credentials:
        credential.check()
    transport = Injecting(httpx2.AsyncHTTPTransport(retries=0), url, credentials, on_silence)
    timeout = httpx2.Timeout(CONNECT_S, read=READ_S)
    async with (
        httpx2.AsyncClient(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams
