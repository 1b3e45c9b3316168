"""The whole platform: one owner at a time, the same data again, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from services.dev.platform import OpenBao, Platform, PlatformFailure, ProcessFailed
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.timeout(300)


def processes_of(directory: Path) -> list[str]:
    """Programs that run in this state directory or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            place, arguments = process.cwd(), " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (str(directory) in arguments or str(directory) in place):
                found.append(f"{process.pid} {process.name()}")
        except psutil.Error:
            continue
    return found


async def test_nothing_runs_after_it_and_the_same_data_is_there_again(state_directory: Path) -> None:
    async with Platform(directory=state_directory, durable=False) as first:
        await first.openbao.put("kept", {"x": "1"})
        assert processes_of(state_directory)
        addresses = (first.openbao.url, first.postgres.port, first.broker.bootstrap)
    assert processes_of(state_directory) == []
    async with Platform(directory=state_directory, durable=False) as again:
        assert await again.openbao.put("kept", {"x": "2"}) == 2
        assert (again.openbao.url, again.postgres.port, again.broker.bootstrap) == addresses


async def test_a_second_run_on_the_same_directory_is_refused(state_directory: Path) -> None:
    async with Platform(directory=state_directory, durable=False) as first:
        with pytest.raises(PlatformFailure, match="in use by another run"):
            await Platform(directory=state_directory).start()
        await first.postgres.execute("SELECT 1")


async def test_a_part_that_fails_is_named_and_the_others_are_stopped(
    state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenBao, "_configuration", lambda _: "nonsense {")
    platform = Platform(directory=state_directory, durable=False)
    with pytest.raises(ProcessFailed, match=r"openbao ended with 1 .*logs/openbao\.log"):
        await platform.start()
    # A killed group takes a moment to be gone.
    await until(lambda: not processes_of(state_directory), within=5)
    monkeypatch.undo()
    async with platform:
        await platform.postgres.execute("SELECT 1")


async def test_nothing_is_left_when_its_owner_is_killed(state_directory: Path) -> None:
    code = textwrap.dedent(f"""
        import asyncio
        from pathlib import Path
        from services.dev.platform import Platform
        async def main():
            async with Platform(directory=Path({str(state_directory)!r})):
                print("ready", flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
    """)
    command = (sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as owner:  # noqa: ASYNC220 - nothing else runs
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        assert len(processes_of(state_directory)) >= 3
        owner.kill()
    await until(lambda: not processes_of(state_directory), within=15)
    async with Platform(directory=state_directory) as again:
        await again.openbao.put("works", {"x": "1"})
