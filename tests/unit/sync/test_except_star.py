"""What an `except*` may do on every Python that is promised."""

from __future__ import annotations

import ast
from pathlib import Path

SERVICES = Path(__file__).parents[3] / "services"


def test_nothing_is_raised_inside_an_except_star() -> None:
    """Python before 3.11.4 wraps it in a group (gh-103590), which an `except` of the error itself misses."""
    raising = [
        f"{path.relative_to(SERVICES)}:{inner.lineno}"
        for path in SERVICES.rglob("*.py")
        for tried in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(tried, ast.TryStar)
        for handler in tried.handlers
        for inner in ast.walk(handler)
        if isinstance(inner, ast.Raise)
    ]
    assert raising == []
