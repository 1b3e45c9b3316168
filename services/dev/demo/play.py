"""Plays the whole story. The exit code is 0 only if every step was observed to hold."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from services.dev.demo.narration import Narrator
from services.dev.demo.stage import Stage
from services.dev.demo.steps import change, custody, opening, record, work
from services.dev.platform.failures import PlatformFailure
from services.dev.platform.locks import sole_use
from services.dev.platform.tools import tool_environment
from services.dev.stack import Stack

Step = tuple[str, Callable[[Stage], Awaitable[None]]]

STEPS: tuple[Step, ...] = (
    ("Everything starts: PostgreSQL, broker, OpenBao, issuer, five services, two gateways", opening.start_everything),
    ("Two hospitals, each with a database and a credential of its own", opening.open_hospitals),
    ("The admin connects, syncs, maps and grants, and never sees a value", opening.administer),
    ("Two agents, the same server: each in its own hospital", work.query_patients),
    ("One agent for both hospitals, by context, at the same time", work.work_for_both),
    ("Agent A asks for hospital B's reference by its exact name", work.probe_foreign_reference),
    ("Rotation: the password changes in PostgreSQL and OpenBao, nobody touches Keyfob", change.rotate),
    ("A gateway that was down comes back with the new value", change.come_late),
    ("Revocation, with proof; and with an instance that does not answer", change.revoke),
    ("A value that a person enters, and a new installation key while her agent works", custody.enter_and_rotate),
    ("One mapping, two deployments: each gives what its own environment holds", custody.use_each_deployments_own),
    ("The record: who, for which context, what, where, when", record.read_audit),
    ("The search for every password that was used", record.search_everywhere),
)


async def play(directory: Path, console: Console | None = None) -> int:
    """Play the story on a fresh stack in `directory`; the process's exit code."""
    # Piped, rich would take 80 columns for the width and fold the tables.
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Beside the directory: the platform's own lock lies in it, and would be deleted with all that is there.
        with sole_use(directory.with_name(f".{directory.name}.lock"), of=directory):
            shutil.rmtree(directory, ignore_errors=True)
            return await _play(directory, console)
    except PlatformFailure as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return 1


async def _play(directory: Path, console: Console) -> int:
    began = time.monotonic()
    tool = await tool_environment("mcp-alchemy")
    stack = Stack(directory, report=lambda line: console.print(f"[dim]{line} …[/]"))
    narrator = Narrator(stack.layout.logs, console)
    try:
        async with stack:
            stage = Stage(stack, narrator, tool)
            for number, (title, perform) in enumerate(STEPS, 1):
                async with narrator.step(number, title):
                    await perform(stage)
    except Exception as error:  # noqa: BLE001 - the end of the story: one sentence, the logs have the rest
        if narrator.failed_at is None:
            held = f"All {narrator.held} steps held, but the stack did not stop cleanly:"
            what = held if narrator.held == len(STEPS) else "The stack did not start:"
            console.print(f"[bold red]{what}[/] {escape(str(error))}\nlogs: {stack.layout.logs}")
        return 1
    console.print(f"\n[bold green]All {narrator.held} steps held[/], in {time.monotonic() - began:.0f} s.")
    return 0
