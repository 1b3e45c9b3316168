"""Rules of this house that no linter knows, each with the mend: `python -m tests.house_rules`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE_LIMIT = 500
BODY_LIMIT = 50


def tracked_sources() -> list[Path]:
    """The product's own Python files, as git knows them."""
    command = ["git", "ls-files", "--", "services/**.py", "shared/**.py", "services/*.py", "shared/*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).exists()]


def complaints_about(path: Path) -> Iterator[str]:
    """What in one file is against the rules."""
    text = path.read_text()
    tree = ast.parse(text)
    name = path.relative_to(ROOT)
    lines = text.count("\n")
    if lines > FILE_LIMIT:
        yield f"{name}: {lines} lines, {FILE_LIMIT} at most: find the two subjects in it and give each a module."
    if lines and ast.get_docstring(tree) is None:
        yield f"{name}: no module docstring: say in a sentence what a reader finds here."
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = (node.end_lineno or 0) - node.body[0].lineno + 1
            if body > BODY_LIMIT:
                yield f"{name}:{node.lineno} {node.name}: a body of {body} lines, {BODY_LIMIT} at most: name its steps."


def main() -> int:
    """Print every complaint; 1 if there is one."""
    found = [line for path in tracked_sources() for line in complaints_about(path)]
    sys.stderr.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"house rules: {len(found)} complaints\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
