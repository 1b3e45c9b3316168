"""Loopback ports for servers that are about to start."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Below every common ephemeral range (Linux 32768+, macOS 49152+): no outgoing connection takes a port
# between our look and the server's bind.
_LOWEST, _HIGHEST = 15_000, 31_999
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: the last run's connections that linger (TIME_WAIT) must not cost a server its kept port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that nothing listens on; raises OSError when none was found."""
    for _ in range(_ATTEMPTS):
        # At random: runs that look at the same time would else find the same port free, before either has bound it.
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - not a secret
        if is_free(port):
            return port
    message = f"no free port between {_LOWEST} and {_HIGHEST}"
    raise OSError(message)


def kept_port(file: Path) -> int:
    """The port noted in `file` if it is free, else a new one, noted there: addresses survive a restart."""
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = 0
    if not (port and is_free(port)):
        port = free_port()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{port}\n")
    return port
