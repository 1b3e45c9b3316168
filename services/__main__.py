"""The `keyfob` command: `serve` runs a service, `dev` and `demo` the whole of it, the rest administers."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Literal

from cyclopts import App

from services.cli.app import admin_commands
from services.cli.commands.keys import keys
from services.cli.connection import CommandFailed
from shared.config import Misconfigured
from shared.crypto.secret import disable_core_dumps

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
    # Imported only now: `keyfob grant list` should not load a broker's client, nor a service the embedded platform.
    run_service = importlib.import_module("shared.serving").run_service
    return int(run_service(importlib.import_module(f"services.{service}.app").main))


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


@keys.command
def recover(recovery_key: Path | None = None, *, retired: bool = False) -> int:
    """Restore lost installation keys from the resolver's database and the recovery key, on any machine.

    Database and keys directory come from the resolver's settings (KEYFOB_RESOLVER_DATABASE_URL, _KEYS_DIR, …).

    Parameters
    ----------
    recovery_key
        The file with the private half; without, it is asked for.
    retired
        Also those that only older backups need.
    """
    command = importlib.import_module("services.resolver.custody.recover_command")
    return int(command.recover_keys(recovery_key, retired=retired))


def main() -> None:
    """Run the command line; a failure is one sentence on stderr and a non-zero exit code."""
    # Here, before any setting is read: not only services hold secrets, also whoever types one into a command.
    disable_core_dumps()
    try:
        code = app(sys.argv[1:], result_action="return_value") or 0
        # Here, where a reader that went away can still be caught: at the interpreter's end it would be a warning.
        sys.stdout.flush()
        sys.exit(code)
    except CommandFailed as error:
        sys.stderr.write(f"keyfob: {error}\n")
        sys.exit(1)
    except Misconfigured as error:
        sys.stderr.write(f"keyfob: {error}\n")
        sys.exit(os.EX_CONFIG)
    except BrokenPipeError:
        _stop_writing()
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop_writing() -> None:
    """Let what is still in the buffer go nowhere, as https://docs.python.org/3/library/signal.html#note-on-sigpipe."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
