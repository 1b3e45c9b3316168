"""MCP over streamable HTTP to a server elsewhere: credentials go into each request, and nowhere but to its own URL.

Redirects are not followed, not even within the server's origin: a definition names one place. The address that is
connected to is the one that was looked at: `shared.egress` says which may be reached. Every body that comes back is
redacted as it streams, whatever its status: for that the server is asked not to compress, and refused if it does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from services.gateway.redaction import Redaction, Redactor
from shared.config import Mode
from shared.crypto.secret import SecretBytes
from shared.egress import own_addresses, refusal
from shared.errors import Unavailable

CONNECT_S: Final = 10.0
READ_S: Final = 300.0
"""A tool may think for minutes before it says a word."""
UNAUTHORIZED: Final = 401
NOT_FOUND: Final = 404
UNSAID: Final = ("location", "content-length")
"""Headers that go no further: one may name a place inside the network, the other counts what was there before."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One header of each request: `prefix` and the value."""

    header: str
    prefix: str
    value: SecretBytes

    def check(self) -> None:
        """Raise `Unavailable` for a value that no header can carry (RFC 9110, section 5.5), without quoting it."""
        text = self.text()
        if not all(0x20 <= octet < 0x7F or octet == 0x09 or octet >= 0x80 for octet in text):  # noqa: PLR2004
            raise Unavailable(
                f"The value for the header {self.header} has characters (a line break, NUL) that no header can carry."
            )
        # Whoever receives it takes them away: the value would arrive as another one.
        if text != text.strip(b" \t"):
            raise Unavailable(f"The value for the header {self.header} begins or ends with white space.")

    def text(self) -> bytes:
        """The header's value."""
        with self.value.reveal() as view:
            return self.prefix.encode() + bytes(view)


class Redacted(httpx2.AsyncByteStream):
    """A body on its way back, through a redactor: what may leave leaves with the chunk that it came with."""

    def __init__(self, inner: httpx2.AsyncByteStream, redactor: Redactor, limit: int | None) -> None:
        self._inner = inner
        self._redactor = redactor
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if self._limit is not None and size > self._limit:
                message = f"a body of more than {self._limit} bytes"
                raise httpx2.RemoteProtocolError(message)
            if passed := self._redactor.feed(chunk):
                yield passed
        if rest := self._redactor.finish():
            yield rest

    async def aclose(self) -> None:
        """Close the body."""
        await self._inner.aclose()


class Injecting(httpx2.AsyncBaseTransport):
    """Adds credentials on the way out, takes them away on the way back, and tells when the server is done."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        place: Place,
        credentials: tuple[Credential, ...],
        redaction: Redaction,
        on_gone: Callable[[], None],
        *,
        ended: Callable[[], bool] = lambda: False,
        body_limit: int | None = None,
    ) -> None:
        self._inner = inner
        self._place = place
        self._credentials = credentials
        self._redaction = redaction
        self._on_gone = on_gone
        self._ended = ended
        self._body_limit = body_limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request. The credential is added after everything that could log or repeat it."""
        # The SDK builds requests from what the server says (endpoints, links): none of that gets a credential.
        if request.url != self._place.url:
            message = "not the place that the definition names"
            raise httpx2.RequestError(message, request=request)
        # The SDK's tasks come back for more (the GET stream does) until they are cancelled: not with a revoked value.
        if self._ended():
            message = "this server's use has ended"
            raise httpx2.RequestError(message, request=request)
        own = [(credential.header.encode(), credential.text()) for credential in self._credentials]
        asked = [(name, value) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
        # Connected to the address that was looked at, and verified by the name (`sni_hostname`): a second look-up could
        # lead elsewhere (DNS rebinding).
        sent = httpx2.Request(
            request.method,
            self._place.pinned,
            headers=[*asked, (b"accept-encoding", b"identity"), *own],
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": self._place.url.host},
        )
        try:
            response = await self._inner.handle_async_request(sent)
        except httpx2.TransportError:
            # Perhaps it lives elsewhere by now: the next call starts afresh, with a new look at its address.
            self._on_gone()
            raise
        if _is_over(request, response):
            self._on_gone()
        return await self._redacted(response, request)

    async def _redacted(self, response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
        # Nobody could find a value in what is compressed (RFC 9110, section 8.4), and it was told not to.
        if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            await response.aclose()
            message = "a body that can't be redacted"
            raise httpx2.RemoteProtocolError(message, request=request)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            # Events go on for as long as the session; the SDK bounds each of them. It reads any other body as a whole.
            events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
            limit = None if events else self._body_limit
            response.stream = Redacted(response.stream, self._redaction.results(), limit)
        for name in UNSAID:
            response.headers.pop(name, None)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Place:
    """The URL of a definition, and the same with the address that was looked at, for the socket."""

    url: httpx2.URL
    pinned: httpx2.URL


async def locate(url: str, mode: Mode) -> Place:
    """Resolve the host once and look at where it leads (`shared.egress`); `Unavailable` if nowhere allowed."""
    parsed = httpx2.URL(url)
    if parsed.scheme != "https" and mode is not Mode.DEVELOPMENT:
        raise Unavailable("The MCP server's URL is not https: credentials do not travel in the clear.")
    port = parsed.port or {"http": 80, "https": 443}[parsed.scheme]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise Unavailable("The MCP server's host is not known.") from None
    # Looked up each time: a machine gets addresses while it runs.
    own = own_addresses()
    for *_, target in found:
        if refusal(ipaddress.ip_address(target[0]), mode=mode, own=own) is None:
            return Place(parsed, parsed.copy_with(host=str(target[0])))
    raise Unavailable("The MCP server's address may not be reached from here.")


def _is_over(request: httpx2.Request, response: httpx2.Response) -> bool:
    """Whether credential or session are not accepted any more: the next call starts afresh, with a new resolve."""
    if response.status_code == UNAUTHORIZED:
        return True
    return response.status_code == NOT_FOUND and request.method == "POST" and "mcp-session-id" in request.headers


@asynccontextmanager
async def connect(
    url: str,
    credentials: tuple[Credential, ...],
    redaction: Redaction,
    *,
    mode: Mode,
    on_silence: Callable[[], None],
    ended: Callable[[], bool],
    body_limit: int,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a session with the server at `url`. Once `ended` nothing is sent; `transport` is for tests."""
    # Before the first byte goes out: a library that refuses a header quotes it.
    for credential in credentials:
        credential.check()
    place = await locate(url, mode)
    inner = transport or httpx2.AsyncHTTPTransport()
    injecting = Injecting(inner, place, credentials, redaction, on_silence, ended=ended, body_limit=body_limit)
    timeout = httpx2.Timeout(CONNECT_S, read=READ_S)
    async with (
        httpx2.AsyncClient(transport=injecting, timeout=timeout, trust_env=False, follow_redirects=False) as client,
        # No DELETE: it would carry the value after its end, for as long as the server cares to answer. Servers end
        # forgotten sessions by themselves.
        streamable_http_client(url, http_client=client, terminate_on_close=False) as streams,
    ):
        yield streams
