"""`python -m tests.bench [name …]`: measures, prints a table and writes flat figures to build/bench.json.

Figures depend on the machine, so each stands beside a baseline of the same run. Nothing here passes or fails.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

BENCHES = ("resolve", "cold_start", "propagation", "seal", "redaction")
RESULT = Path("build/bench.json")


async def measure(names: tuple[str, ...]) -> dict[str, float]:
    """All figures of the named benches, by name; each name is a module beside this one with `run()`."""
    figures: dict[str, float] = {}
    for name in names:
        module = importlib.import_module(f"tests.bench.{name}")
        print(f"== {name}: {(module.__doc__ or '').strip().splitlines()[0]}", flush=True)
        figures |= await module.run()
    return figures


def main(arguments: list[str]) -> int:
    """Measure what was asked for, everything without arguments."""
    unknown = [name for name in arguments if name not in BENCHES]
    if unknown:
        sys.stderr.write(f"There is no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}.\n")
        return 2
    figures = asyncio.run(measure(tuple(arguments) or BENCHES))
    table = Table("figure", "value", title="Measured on this machine")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}")
    Console().print(table)
    RESULT.parent.mkdir(exist_ok=True)
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(known | figures, indent=2, sort_keys=True) + "\n")
    print(f"written to {RESULT}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
