"""The `keyfob` command: `serve` runs a service, `dev` and `demo` the whole of it, the rest administers."""

from __future__ import annotations

import importlib
import sys
from typing import Literal

from cyclopts import App

from services.cli.app import admin_commands
from services.cli.connection import CommandFailed
from shared.config import Misconfigured
from shared.serving import EXIT_MISCONFIGURED, run_service

Service = Literal["sync", "policy", "resolver", "notifier", "audit", "gateway"]

app = App(
    name="keyfob",
    help="Keyfob: MCP gateways get secrets by reference, and nobody else gets them at all.",
    version="0.1.0",
)
admin_commands(app)


@app.command
def serve(service: Service) -> int:
    """Run one service until a signal; its settings come from the environment (KEYFOB_…)."""
    return run_service(importlib.import_module(f"services.{service}.app").main)


dev = App(name="dev", help="Start everything on this machine and leave it running; never for production.")
app.command(dev)


@dev.default
def start() -> int:
    """Start everything on this machine and leave it running: for development, never for production."""
    return int(importlib.import_module("services.dev.commands").dev())


@dev.command
def token(subject: str, *, group: list[str], ttl_s: int = 3600) -> None:
    """Print an access token of the development issuer, for an agent of the running stack.

    Parameters
    ----------
    subject
        Who the token is for.
    group
        A group that they are in; repeat for more.
    ttl_s
        How long it holds, seconds.
    """
    sys.stdout.write(importlib.import_module("services.dev.commands").token(subject, group, ttl_s=ttl_s) + "\n")


@app.command
def demo() -> int:
    """Play the hospital story on real parts and check every step of it."""
    return int(importlib.import_module("services.dev.commands").demo())


def main() -> None:
    """Run the command line; a failure is one sentence on stderr and a non-zero exit code."""
    try:
        sys.exit(app(sys.argv[1:], result_action="return_value") or 0)
    except CommandFailed as error:
        sys.stderr.write(f"keyfob: {error}\n")
        sys.exit(1)
    except Misconfigured as error:
        sys.stderr.write(f"keyfob: {error}\n")
        sys.exit(EXIT_MISCONFIGURED)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
