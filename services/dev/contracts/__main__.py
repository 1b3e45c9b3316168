"""`python -m services.dev.contracts write | check | release`: generate `schemas/`, or say where it has drifted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from services.dev.contracts.generate import event_files, openapi_files
from services.dev.contracts.released import broken_promises, digest

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas"
_OURS = ("events", "asyncapi", "openapi")
"""Folders that hold nothing but generated files."""


def _stale(generated: dict[str, str]) -> list[Path]:
    kept = {SCHEMAS / path for path in generated}
    return sorted(path for folder in _OURS for path in (SCHEMAS / folder).rglob("*.json") if path not in kept)


def write(generated: dict[str, str]) -> None:
    """Make `schemas/` what the models say, removing what no model stands for any more."""
    for path in _stale(generated):
        path.unlink()
    for name, text in generated.items():
        path = SCHEMAS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    sys.stdout.write(f"{len(generated)} files in schemas/\n")


def check(generated: dict[str, str]) -> list[str]:
    """Every way in which `schemas/` and the models disagree."""
    drifted = [
        name
        for name, text in generated.items()
        if not (SCHEMAS / name).exists() or (SCHEMAS / name).read_text() != text
    ]
    drifted += [str(path.relative_to(SCHEMAS)) for path in _stale(generated)]
    return [f"schemas/{name} has drifted from the models: run `make schemas`." for name in drifted]


def release(generated: dict[str, str]) -> None:
    """Promise that today's event schemas never change."""
    promised = {name: digest(text) for name, text in generated.items() if name.startswith("events/")}
    (SCHEMAS / "released.json").write_text(json.dumps(promised, indent=2, sort_keys=True) + "\n")


def main(arguments: list[str]) -> int:
    """The exit code: 0, or 1 with a sentence for each file that must not land like this."""
    generated = event_files() | openapi_files()
    complaints = broken_promises(SCHEMAS, generated)
    match arguments:
        # Not over a broken promise: the committed file is what the complaint is explained from.
        case ["write"] if not complaints:
            write(generated)
        case ["check"]:
            complaints += check(generated)
        case ["release"] if not complaints:
            release(generated)
        case _ if not complaints:
            complaints = ["Say one of: write, check, release."]
    sys.stderr.writelines(f"{line}\n" for line in complaints)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
