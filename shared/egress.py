"""The one way out to places that somebody configured: sources, JWKS, OAuth discovery, webhooks.

An administrator can type any URL, so an address decides, not a name. The check runs on the very address that a
socket is about to connect to, at every new connection: there is no second look-up that could answer differently
(DNS rebinding). Never reached: link-local and cloud metadata addresses, multicast, unspecified and reserved ones,
the addresses of this host, and loopback outside development mode. Private networks are where secret managers
live: they are allowed. Redirects are not followed, proxies and cookies of the environment are not used, and size
and time are bounded.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
import psutil
from yarl import URL

from shared.config import Misconfigured, Mode
from shared.errors import BadRequest, cut

Address = IPv4Address | IPv6Address

DEFAULT_TIMEOUT_S: Final = 5.0
DEFAULT_LIMIT: Final = 1024 * 1024
"""Bytes of an answer."""
MAX_CONNECTIONS: Final = 64

_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "168.63.129.16",  # Azure WireServer
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS over IPv6
        "fd20:ce::254",  # Google Cloud over IPv6
    )
)
"""Metadata services outside the link-local ranges, by the vendors' documentation."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is really reached."""

_HOST: Final = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
"""A name in ASCII (others in punycode), or an IPv6 address, as `urlsplit` gives them."""

_PORTS: Final = {"http": 80, "https": 443}


class AddressRefused(PermissionError):
    """An address that this process must not connect to; `why` is safe to show."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EACCES, why)
        self.why = why


class NotReached(Exception):
    """No usable answer came: no connection, no time, too much, or an address that is refused.

    The text is one cut line and safe to log. The caller turns it into an error of its own.
    """


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a credential is bound to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, mode: Mode) -> Self:
        """Read `https://host[:port]`; `BadRequest` for anything else, and for plain HTTP outside development."""
        try:
            parts = urlsplit(text)
            usual = _PORTS[parts.scheme]
            port = usual if parts.port is None else parts.port
        except (ValueError, KeyError):
            raise BadRequest("An origin looks like https://vault.example:8200.") from None
        if (
            not _HOST.fullmatch(parts.hostname or "")
            or port == 0
            # A password in an address would be shown wherever the address is.
            or parts.username is not None
            or parts.path not in {"", "/"}
            or parts.query + parts.fragment
        ):
            raise BadRequest("An origin is a scheme, a host and a port, and nothing else.")
        if parts.scheme != "https" and mode is not Mode.DEVELOPMENT:
            raise BadRequest("Plain http is for development mode only: credentials travel on it.")
        return cls(parts.scheme, parts.hostname or "", port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _reached(address: Address) -> Address:
    """The address that packets really go to: IPv4 inside mapped, 6to4 and NAT64 forms."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def refusal(
    address: Address,
    *,
    mode: Mode,
    own: frozenset[Address] = frozenset(),
) -> str | None:
    """Why `address` must not be connected to, or None. `own` are the addresses of this host."""
    reached = _reached(address)
    if reached.is_loopback:
        return None if mode is Mode.DEVELOPMENT else "loopback is for development mode only"
    if reached.is_link_local or reached in _METADATA:
        return "link-local and metadata addresses are never used"
    if reached.is_multicast or reached.is_unspecified or reached.is_reserved:
        return "not an address of one host"
    # In development everything may run on this one host.
    if reached in own and mode is not Mode.DEVELOPMENT:
        return "an address of this host"
    return None


def own_addresses() -> frozenset[Address]:
    """The addresses of this host's interfaces."""
    texts = (
        entry.address.partition("%")[0]
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family in {socket.AF_INET, socket.AF_INET6}
    )
    return frozenset(ipaddress.ip_address(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Guard:
    """Makes the sockets of outgoing connections, after a look at where each one is to go."""

    mode: Mode
    own: Callable[[], frozenset[Address]] = own_addresses

    def socket_for(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for one resolved address; `AddressRefused` if that may not be reached."""
        # The address that will be connected to, after every look-up: nothing can answer differently behind this.
        family, kind, protocol, _, target = info
        address = ipaddress.ip_address(str(target[0]).partition("%")[0])
        # Our own addresses are asked for each time: interfaces come and go.
        why = refusal(address, mode=self.mode, own=self.own())
        if why is not None:
            raise AddressRefused(why)
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened


def guarded_session(
    *,
    mode: Mode,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    connections: int = MAX_CONNECTIONS,
    ca_file: Path | None = None,
) -> aiohttp.ClientSession:
    """A session that connects only where it may. Call it inside the event loop; the caller closes it.

    Raises `Misconfigured` for a `ca_file` without certificates.

    A bare session leaves two things to its caller: `allow_redirects=False`, and a bound on what is read. `Egress`
    does both.
    """
    connector = aiohttp.TCPConnector(
        limit=connections,
        ssl=_trusting(ca_file),
        socket_factory=Guard(mode).socket_for,
        use_dns_cache=False,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        # Not compressed and not unpacked: the bound counts what comes, and a few bytes may unpack to any number.
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    )


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        # Behind the system's own: given to the line above, the file would replace them.
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise Misconfigured(f"{ca_file} holds no certificates: {cut(error.strerror)}.") from None
    return context


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, already bounded."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Egress:
    """Requests to configured places over kept-alive, guarded connections. An async context manager."""

    def __init__(
        self,
        *,
        mode: Mode,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        limit: int = DEFAULT_LIMIT,
        connections: int = MAX_CONNECTIONS,
        ca_file: Path | None = None,
    ) -> None:
        """`timeout_s` bounds a whole request in seconds, `limit` an answer in bytes, `ca_file` adds trust."""
        self._mode = mode
        self._timeout_s = timeout_s
        self._limit = limit
        self._connections = connections
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool; nothing is connected yet."""
        self._session = guarded_session(
            mode=self._mode, timeout_s=self._timeout_s, connections=self._connections, ca_file=self._ca_file
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """The answer, whatever its status; a redirect is an answer like any other. `NotReached` without one.

        `url` as a string is parsed and quoted; pass `yarl.URL(..., encoded=True)` for one that already is.
        """
        if self._session is None:
            raise RuntimeError("enter the Egress first")
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False
            ) as response:
                return Answer(response.status, response.headers, await self._bounded(response))
        # First, because the guard's own refusal arrives in it.
        except aiohttp.ClientConnectorError as error:
            raise NotReached(_connect_text(error)) from None
        except TimeoutError:
            raise NotReached(f"no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their texts may quote the URL or what the other side wrote: the type says enough.
            raise NotReached(f"the exchange failed ({type(error).__name__})") from None

    async def _bounded(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._limit:
                # Not released to the pool: the rest of the answer is still in that connection.
                response.close()
                raise NotReached(f"the answer is longer than {self._limit} bytes")
        return bytes(body)


def _connect_text(error: aiohttp.ClientConnectorError) -> str:
    cause = error.os_error
    if isinstance(cause, AddressRefused):
        return f"the address is refused: {cause.why}"
    return cut(f"no connection: {cause.strerror or type(cause).__name__}")
