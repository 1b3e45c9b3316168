"""Where peers are, as settings say: plain HTTP only on this machine, or in development mode.

Requests carry people's tokens and, for some gateways, answers carry values.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from shared.config import Misconfigured, Mode


def is_loopback(host: str) -> bool:
    """Whether a name or address is certainly this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name may resolve to anything, and to something else tomorrow; only this one is reserved (RFC 6761 §6.3).
        return host == "localhost"


def checked_origins(text: str, *, mode: Mode, setting: str, always_tls: bool = False) -> tuple[str, ...]:
    """The comma-separated origins in `text`. Raises `Misconfigured` naming `setting`.

    `always_tls`: not even on this machine without.
    """
    origins = tuple(filter(None, (part.strip() for part in text.split(","))))
    for origin in origins:
        _check(origin, mode, setting, always_tls=always_tls)
    return origins


def _check(origin: str, mode: Mode, setting: str, *, always_tls: bool) -> None:
    try:
        parts = urlsplit(origin)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    # No user or password: the address stands in answers, in assertions and in log lines.
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in {"http", "https"} or not host or more:
        raise Misconfigured(f"{setting} must be origins such as https://resolver.example:8443, comma separated.")
    if parts.scheme == "http" and always_tls:
        raise Misconfigured(f"{setting} must be https: a client certificate is shown there.")
    if parts.scheme == "http" and mode is Mode.PRODUCTION and not is_loopback(host):
        raise Misconfigured(f"{setting} must be https outside this machine: requests carry people's tokens.")
