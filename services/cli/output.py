"""Tables for people, JSON for scripts; the same data in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Output:
    """How a command answers."""

    # No --no-json: without --json it is a table anyway.
    json: Annotated[bool, Parameter(negative="", help="print JSON for scripts instead of a table")] = False

    def rows(self, items: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str = "") -> None:
        """Print one row an item; JSON has every field, a table the named columns."""
        if self.json:
            _print_json(items)
            return
        table = Table(title=title or None, title_justify="left", header_style="bold", expand=False)
        for column in columns:
            # Folded and not cut: an id that lost its end is no use to anybody.
            table.add_column(column.rpartition(".")[2].replace("_", " "), overflow="fold")
        for item in items:
            table.add_row(*(_shown(_pick(item, column)) for column in columns))
        _console().print(table if items else f"{title or 'Nothing'}: none")

    def one(self, item: Mapping[str, Any]) -> None:
        """Print one entity: its fields below each other."""
        if self.json:
            _print_json(item)
            return
        table = Table(show_header=False, box=None)
        for name, value in item.items():
            table.add_row(name.replace("_", " "), _shown(value))
        _console().print(table)

    def said(self, sentence: str, result: Mapping[str, Any]) -> None:
        """Print what was done: a sentence for people, the result for scripts."""
        if self.json:
            _print_json(result)
        else:
            _console().print(_shown(sentence))


def note(sentence: str) -> None:
    """Progress and remarks: to stderr, so that they never mix with what a script reads."""
    Console(stderr=True).print(sentence, markup=False, highlight=False)


def _console() -> Console:
    # Piped, a table has no terminal to fit: 200 columns keep ids whole for grep.
    return Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def _print_json(data: object) -> None:
    # ASCII only: people run this at a terminal too, and JSON's own escapes harm none.
    sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")


def _pick(item: Mapping[str, Any], column: str) -> Any:
    value: Any = item
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> Text:
    """What a person sees of a value.

    Names, paths and subjects are other people's words: as `Text` their brackets are no markup of ours, and what would
    move the cursor, colour the terminal or turn the writing around is not printed (`str.isprintable`).
    """
    return Text("".join(one if one.isprintable() or one == "\n" else "?" for one in _cell(value)))


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return ", ".join(f"{name}={_cell(inner)}" for name, inner in value.items())
        case str():
            return value
        case Iterable():
            return ", ".join(_cell(inner) for inner in value)
        case _:
            return str(value)
