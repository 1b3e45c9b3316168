"""A second listener of a service, to whom a peer is nobody without a client certificate.

Who a peer is comes from the connection and never from a header: whatever stands in a header, anybody can have written.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.config import Misconfigured
from shared.serving import KEEP_ALIVE_S, without_signals

PEER: Final = "keyfob.peer"
"""Where a request's `state` holds the `Peer`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of one connection, whose certificate the listener's authority signed.

    `certificate` is DER; `abort` ends the connection now, whatever still waits to be sent.
    """

    certificate: bytes
    abort: Callable[[], None]


def peer_of(scope: Mapping[str, Any]) -> Peer | None:
    """The peer of an ASGI request; None where there was no certificate, which no handler may take for somebody."""
    found = scope.get("state", {}).get(PEER)
    return found if isinstance(found, Peer) else None


class _PeerProtocol(HttpToolsProtocol):
    """Tells the application who is at the other end: uvicorn copies `app_state` into each request's `state`."""

    open_ones: ClassVar[Counter[bytes]]
    """Certificate → its connections."""
    most: ClassVar[int]
    _certificate: bytes = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        channel = transport.get_extra_info("ssl_object")
        self._certificate = (None if channel is None else channel.getpeercert(True)) or b""
        self.open_ones[self._certificate] += 1
        # One peer must not take everybody's connections. It may have many, so that its old ones need not be found.
        if self.open_ones[self._certificate] > self.most:
            transport.abort()
        elif self._certificate:
            # A mapping of its own: the one that was handed in is shared by all connections.
            self.app_state = {**self.app_state, PEER: Peer(self._certificate, transport.abort)}
        # uvicorn begins to count idle time only after a first request.
        self.timeout_keep_alive_task = self.loop.call_later(KEEP_ALIVE_S, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.open_ones[self._certificate] -= 1
        if self.open_ones[self._certificate] <= 0:
            del self.open_ones[self._certificate]


def _protocol(most: int) -> type[_PeerProtocol]:
    """The protocol of one listener: uvicorn makes its objects, so what they share is the class's."""
    return type("PeerProtocol", (_PeerProtocol,), {"open_ones": Counter(), "most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class MutualTls:
    """Where to listen, as whom, and whose certificates to take; PEM files."""

    host: str
    port: int
    certificate: Path
    key: Path
    client_ca: Path
    connections: int
    """At a time; one more is answered with 503."""
    connections_each: int = 50
    """Of one certificate; one more is closed."""

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, with a client certificate or not at all. `Misconfigured` for files that don't work."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        # No resumption: each connection proves its certificate anew, so that one that has expired ends.
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        context.num_tickets = 0
        try:
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"TLS with {self.certificate}, {self.key} and {self.client_ca} can't be set up: "
                f"{getattr(error, 'reason', None) or error.strerror or type(error).__name__}."
            ) from None
        return context


class MutualListener:
    """Serves `app` until `stop`. `port` is known once it `started`."""

    def __init__(self, app: ASGIApp, tls: MutualTls) -> None:
        context = tls.context()
        config = uvicorn.Config(
            app,
            host=tls.host,
            port=tls.port,
            http=_protocol(tls.connections_each),
            ws="none",
            loop="none",
            lifespan="off",
            access_log=False,
            proxy_headers=False,
            log_config=None,
            server_header=False,
            date_header=False,
            ssl_context_factory=lambda *_: context,
            limit_concurrency=tls.connections,
            timeout_graceful_shutdown=2,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = without_signals(config)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until `stop`; cancelled, it ends its connections first."""
        serving = asyncio.create_task(self._server.serve())
        try:
            await asyncio.shield(serving)
        finally:
            self._server.should_exit = True
            await asyncio.wait([serving])
            self._ended.set()

    async def stop(self) -> None:
        """Take no more requests, and return when those under way have ended. Only after `run` began."""
        self._server.should_exit = True
        await self._ended.wait()

    @property
    def port(self) -> int | None:
        """Where it listens; None before it does."""
        if not self._server.started:
            return None
        return int(self._server.servers[0].sockets[0].getsockname()[1])
