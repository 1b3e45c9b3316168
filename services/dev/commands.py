"""`keyfob dev` and `keyfob demo`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from services.cli.connection import CommandFailed
from services.dev.demo.play import play
from services.dev.platform import DevIssuer
from services.dev.platform.failures import PlatformFailure
from services.dev.stack import SOURCE, Stack
from services.dev.stack.layout import Layout

STATE_VARIABLE = "KEYFOB_STATE"
_STATE = Path(".keyfob")
GATEWAYS = ("gateway-1", "gateway-2")


def _state(name: str) -> Path:
    return Path(os.environ.get(STATE_VARIABLE, _STATE)) / name


def demo() -> int:
    """Play the story; Ctrl-C stops everything cleanly."""
    return _run(play(_state("demo")))


def dev() -> int:
    """Start the stack and leave it running until Ctrl-C."""
    return _run(_dev(Console(highlight=False)))


def token(subject: str, groups: list[str], *, ttl_s: int) -> str:
    """An access token of the stack's development issuer; `CommandFailed` where no stack has run yet."""
    directory = Layout(_state("dev")).issuer
    if not directory.exists():
        raise CommandFailed("There is no development issuer here yet: run `keyfob dev` first, in this folder.")
    return DevIssuer(directory).token(subject, groups, ttl_s=ttl_s)


def _run(work: Coroutine[None, None, int]) -> int:
    async def main() -> int:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # asyncio.run minds SIGINT alone: by SIGTERM everything would end without being stopped.
            loop.add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            return await task
        return 130

    return asyncio.run(main())


async def _dev(console: Console) -> int:
    stack = Stack(_state("dev"), report=lambda line: console.print(f"[dim]{line} …[/]"))
    try:
        async with stack:
            for name in GATEWAYS:
                await stack.enrol_gateway(name)
                await stack.start_gateway(name)
            _explain(stack, console)
            await asyncio.Event().wait()
    except PlatformFailure as error:
        console.print(f"[bold red]{error}[/]")
        return 1
    finally:
        console.print("[dim]stopped; the state stays in " + str(stack.layout.root) + "[/]")
    return 0


def _explain(stack: Stack, console: Console) -> None:
    """What runs where, and commands that can be pasted."""
    client = {
        "mcpServers": {
            "my-server": {
                "type": "http",
                "url": f"{stack.environments.url('gateway-1')}/mcp/my-server",
                "headers": {"Authorization": "Bearer $(keyfob dev token agent-a --group staff)"},
            }
        }
    }
    openbao = stack.platform.openbao.url
    console.print("\n[bold]Keyfob is running.[/] Ctrl-C stops it.\n")
    for name in stack.supervisor.processes:
        if name in stack.environments.ports:
            console.print(f"  {name:<12} {stack.environments.url(name)}")
    console.print(f"  {'openbao':<12} {openbao}\n  {'logs':<12} {stack.layout.logs}\n", markup=False)
    for line in (
        f"export KEYFOB_CONNECTION={stack.layout.connection}",
        f"keyfob source add {SOURCE} --origin {openbao}",
        "keyfob sync",
        "keyfob reference list",
        f"keyfob idp add development --issuer {stack.issuer.url} --jwks-uri {stack.issuer.url}/jwks",
        "keyfob instance list",
        "keyfob dev token agent-a --group staff",
    ):
        # Not folded to the width of the terminal: a folded command can not be pasted.
        console.print(line, markup=False, soft_wrap=True)
    console.print("\nAn MCP client's configuration:", json.dumps(client, indent=2), sep="\n", markup=False)
