"""A door on fakes, and its feed running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.resolver.https_only import streams
from tests.fakes.https_door import HttpsDoor, https_door
from tests.fakes.resolving import Bench


@pytest.fixture
async def door(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpsDoor]:
    monkeypatch.setattr(streams, "LOOK_AGAIN_S", 0.005)
    made = https_door(bench, tmp_path)
    running = asyncio.create_task(made.feed.run())
    # Until its first position is captured.
    await asyncio.sleep(0)
    yield made
    made.feed.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
