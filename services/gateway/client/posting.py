"""One bounded POST to a service of Keyfob: no redirects, no proxies of the environment, no cookies."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self
from urllib.parse import urlsplit

import aiohttp

from shared.config import Misconfigured, Mode
from shared.errors import Unavailable

ANSWER_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of an answer: the largest envelope with room to spare."""
ADDRESS: Final = "A service's address looks like https://resolver.example:8443, and names no user."


@dataclass(frozen=True, slots=True)
class Posted:
    """A whole answer. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Post(Protocol):
    """The port: the answer, whatever its status. `Unavailable` when there is none within `timeout_s`."""

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        """Send `body` as JSON."""
        ...


def check_url(url: str, mode: Mode) -> str:
    """`url` without a trailing slash, if it may be used; plain HTTP only to loopback, or in development mode."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Misconfigured(ADDRESS) from None
    # No user or password: the address stands in log lines, in assertions, and in what agents are told.
    named = parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in {"http", "https"} or not host or named:
        raise Misconfigured(ADDRESS)
    if parts.scheme == "http" and mode is not Mode.DEVELOPMENT and not _is_loopback(host):
        raise Misconfigured("Requests carry people's tokens: outside loopback a service's address needs https.")
    return url.rstrip("/")


def origin_of(url: str) -> str:
    """Scheme, host and port of `url`, as the other side knows itself."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class HttpPost:
    """`Post` over kept-alive connections. An async context manager."""

    def __init__(self, *, connections: int = 64) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy of the environment would see tokens, and sealed values with their sizes.
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        """See `Post`."""
        if self._session is None:
            message = "enter the HttpPost first"
            raise RuntimeError(message)
        sent = {"Content-Type": "application/json", **headers}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(
                url, data=body, headers=sent, timeout=timeout, allow_redirects=False
            ) as answer:
                # Bounded while it is read: Content-Length is only what the other side says.
                received = await answer.content.read(ANSWER_LIMIT + 1)
                while len(received) <= ANSWER_LIMIT and (more := await answer.content.read(ANSWER_LIMIT)):
                    received += more
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Their texts may quote what the other side wrote: the type says enough.
            raise Unavailable(f"No answer from {origin_of(url)} ({type(error).__name__}).") from None
        if len(received) > ANSWER_LIMIT:
            raise Unavailable(f"The answer of {origin_of(url)} is too long.")
        return Posted(answer.status, {name.lower(): value for name, value in answer.headers.items()}, received)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
