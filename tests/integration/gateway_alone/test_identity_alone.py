"""One identity, one process: what convergence says of an instance rests on it (`live_runs` of the notifier)."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from services.gateway import app
from services.gateway.client.identity import alone
from shared.config import Misconfigured
from tests.waiting import until

ROOT = Path(__file__).parents[3]
HOLDER = """
import asyncio, pathlib, subprocess, sys
from services.gateway.client.identity import alone

async def main():
    async with alone(pathlib.Path(sys.argv[1]), within_s=0):
        subprocess.Popen(["/bin/sleep", "600"], stdout=subprocess.DEVNULL)
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@asynccontextmanager
async def another_process(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """One that holds the identity, and has a child."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(directory), cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_a_second_process_with_the_same_identity_does_not_run(tmp_path: Path) -> None:
    async with another_process(tmp_path):
        with pytest.raises(Misconfigured) as refused:
            async with alone(tmp_path, within_s=0):
                pass
    assert str(tmp_path) in str(refused.value)
    assert "enrol" in str(refused.value), "the sentence says what to do"


async def test_a_process_that_is_killed_lets_go_although_a_child_of_it_lives(tmp_path: Path) -> None:
    async with another_process(tmp_path) as process:
        process.kill()
        await process.wait()
        async with alone(tmp_path, within_s=0):
            pass


async def test_a_process_that_is_stopped_does_not_let_go(tmp_path: Path) -> None:
    """It may be continued at any time, with everything that it held."""
    async with another_process(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(Misconfigured):
            async with alone(tmp_path, within_s=0.05):
                pass


async def test_a_predecessor_that_is_just_leaving_is_waited_for(tmp_path: Path) -> None:
    entered = asyncio.Event()

    async def successor() -> None:
        async with alone(tmp_path, within_s=5):
            entered.set()

    async with alone(tmp_path, within_s=0):
        coming = asyncio.create_task(successor())
        await asyncio.sleep(0.01)
        assert not entered.is_set()
    await coming
    assert entered.is_set()


async def test_other_identities_are_other_instances(tmp_path: Path) -> None:
    async with alone(tmp_path / "one", within_s=0), alone(tmp_path / "two", within_s=0):
        pass


async def test_a_failure_inside_lets_go_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with alone(tmp_path, within_s=0):
            raise ZeroDivisionError
    async with alone(tmp_path, within_s=0):
        pass


async def test_a_directory_that_was_not_there_is_made_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "identity"
    async with alone(directory, within_s=0):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


async def test_where_no_directory_can_be_the_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured) as refused:
        async with alone(tmp_path / "file", within_s=0):
            pass
    assert "file" in str(refused.value)


async def test_the_gateway_itself_takes_its_identity_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYFOB_GATEWAY_IDENTITY_DIR", str(tmp_path))
    monkeypatch.setattr(app, "PREDECESSOR_S", 0.0)
    monkeypatch.setattr(app, "_quiet_libraries", lambda: None)
    monkeypatch.setattr(app.telemetry, "configure", lambda _: None)
    async with alone(tmp_path, within_s=0):
        with pytest.raises(Misconfigured) as refused:
            await app.main()
    assert "another process" in str(refused.value).lower()
    with pytest.raises(Misconfigured) as nothing_to_enrol_with:
        await app.main()
    assert "enrolment token" in str(nothing_to_enrol_with.value)


async def test_a_gateway_that_can_not_enrol_yet_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    async def take_up(directory: Path, **_: object) -> object:
        tried.append(directory)
        if len(tried) < 3:
            raise app.Unavailable("Policy answered 503 to an enrolment.")
        return "identity"

    monkeypatch.setattr(app, "take_up", take_up)
    monkeypatch.setattr(app, "ENROL_AGAIN_S", 0)
    settings = app.GatewaySettings(identity_dir=tmp_path)
    found: object = await app._enrol(settings, app.CommonSettings(), app.HttpPost())
    assert found == "identity"
    await until(lambda: tried == [tmp_path] * 3)
