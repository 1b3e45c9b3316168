"""What the story prints, and how a step fails: with its name and the place of the logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

Seen = TypeVar("Seen")

_POLL_S = 0.02


class StepFailed(Exception):
    """A step of the story was not observed to hold; the text says what was expected."""


def expect(truth: object, sentence: str) -> None:
    """End the story unless `truth` holds."""
    if not truth:
        raise StepFailed(sentence)


def present(seen: Seen | None, sentence: str) -> Seen:
    """`seen`, or the end of the story if there is none."""
    if seen is None:
        raise StepFailed(sentence)
    return seen


async def until(look: Callable[[], Awaitable[Seen | None]], *, within_s: float, sentence: str) -> Seen:
    """What `look` gives once it gives something true; `StepFailed` with `sentence` after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        seen = await look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise StepFailed(f"{sentence} (waited {within_s:g} s)")
        await asyncio.sleep(_POLL_S)


def _words(error: BaseException) -> str:
    """What failed, without the groups that task groups put around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, StepFailed) else f"{type(error).__name__}: {error}"


class Narrator:
    """Prints the story; remembers how many steps held."""

    def __init__(self, logs: Path, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._logs = logs
        self.held = 0
        self.failed_at: int | None = None

    @asynccontextmanager
    async def step(self, number: int, title: str) -> AsyncIterator[None]:
        """One numbered step: its title, what is said in it, and a mark with its duration."""
        self._console.print(f"\n[bold cyan]{number:>2}[/]  [bold]{title}[/]")
        began = time.monotonic()
        try:
            yield
        # Ctrl-C cancels the story (CancelledError is no Exception): that is no failed step.
        except Exception as error:
            self.failed_at = number
            words = _words(error)
            self._console.print(f"    [bold red]✗ step {number} failed:[/] {escape(words)}")
            self._console.print(f"    logs: {self._logs}")
            raise
        self.held += 1
        self._console.print(f"    [green]✓[/] [dim]{time.monotonic() - began:.1f} s[/]")

    def say(self, sentence: str) -> None:
        """A line under the present step."""
        self._console.print(f"    {sentence}", markup=False)

    def measured(self, what: str, milliseconds: float) -> None:
        """A time that was measured in this run."""
        self._console.print(f"    {what}: [bold yellow]{milliseconds:.0f} ms[/]")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table under the present step."""
        table = Table(*columns, header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, 4)))

    def records(self, columns: Mapping[str, str], items: Sequence[Mapping[str, object]]) -> None:
        """A table of some fields of some items; `columns` maps heading to field."""
        self.table(list(columns), [[item.get(field, "") for field in columns.values()] for item in items])
