"""How the story ends: refused beside another one, and with a true word about what went wrong."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console

from services.dev.demo import play as telling
from services.dev.stack.layout import Layout


class Theatre:
    """Plays a story of one step on a stack that does nothing, or fails where a test wants it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.layout = Layout(directory)
        self.during: Callable[[], Awaitable[None]] | None = None
        self.starting: Exception | None = None
        self.stopping: Exception | None = None

    async def __aenter__(self) -> Self:
        if self.starting:
            raise self.starting
        self.directory.mkdir(parents=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.stopping:
            raise self.stopping

    async def perform(self, _: object) -> None:
        if self.during:
            await self.during()

    async def play(self) -> tuple[int, str]:
        out = io.StringIO()
        code = await telling.play(self.directory, Console(file=out, width=1000))
        return code, out.getvalue()


@pytest.fixture
def theatre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theatre:
    made = Theatre(tmp_path / "state" / "demo")

    async def no_tool(_: str) -> Path:
        return tmp_path

    def stack(*_: Any, **__: Any) -> Theatre:
        return made

    monkeypatch.setattr(telling, "tool_environment", no_tool)
    monkeypatch.setattr(telling, "Stack", stack)
    monkeypatch.setattr(telling, "STEPS", (("The only step", made.perform),))
    return made


async def test_each_story_begins_in_an_empty_place(theatre: Theatre) -> None:
    for _ in range(2):
        code, text = await theatre.play()
        assert (code, "All 1 steps held" in text) == (0, True)


async def test_a_second_story_in_the_same_place_is_refused_and_the_first_is_untouched(theatre: Theatre) -> None:
    seen: list[tuple[int, str]] = []

    async def play_again() -> None:
        theatre.during = None
        (theatre.directory / "kept").touch()
        seen.append(await theatre.play())
        assert (theatre.directory / "kept").exists()

    theatre.during = play_again
    assert (await theatre.play())[0] == 0
    assert seen == [(1, f"{theatre.directory} is in use by another run\n")]


async def test_a_failure_to_stop_is_not_told_as_one_to_start(theatre: Theatre) -> None:
    theatre.stopping = OSError("too late")
    code, text = await theatre.play()
    assert code == 1
    assert "All 1 steps held, but the stack did not stop cleanly: too late" in text
    assert "did not start" not in text


async def test_a_failure_to_start_is_told_as_one(theatre: Theatre) -> None:
    theatre.starting = OSError("too early")
    code, text = await theatre.play()
    assert code == 1
    assert "The stack did not start: too early" in text
