"""One installation, watched from before its start to its end, with canaries planted for the search to find."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.stages import empty_stage
from tests.leaks.planting import Planted, planted
from tests.leaks.processes import Watch
from tests.leaks.ward import SETTINGS, Ward, ward

_SAID: list[str] = []


@dataclass(slots=True)
class Run:
    """One canary run."""

    ward: Ward
    planted: Planted
    watch: Watch
    since: float
    said: list[str] = field(default_factory=lambda: _SAID)


@pytest.fixture(scope="package")
def temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where every process of the run puts temporary files, and none of anybody else; core files are asked for."""
    place = tmp_path_factory.mktemp("keyfob-leaks-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setattr(tempfile, "tempdir", str(place))
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        # Raised, so that a process which does not turn them off would leave one.
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        yield place
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def run(temporary_directory: Path) -> AsyncIterator[Run]:
    """Everything started, furnished and planted."""
    since = time.time()
    assert os.environ["TMPDIR"] == str(temporary_directory)
    with Watch() as watch:
        async with empty_stage(SETTINGS) as stage, planted(stage.stack) as seeds, ward(stage, watch) as made:
            yield Run(made, seeds, watch, since)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was driven, searched, planted and found."""
    for line in _SAID:
        terminalreporter.write_line(line)
