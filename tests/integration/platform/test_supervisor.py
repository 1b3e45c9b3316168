"""Supervision: what dies comes back, what was stopped stays so, and a failure says where to look."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from services.dev.platform.failures import ProcessFailed
from services.dev.platform.processes import Process, Supervisor
from tests.waiting import until


class Workshop:
    """Makes tiny children that mark each of their starts and stops in a journal."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def journal(self) -> list[str]:
        file = self._directory / "journal"
        return file.read_text().split() if file.exists() else []

    def child(self, name: str, code: str = "while True: time.sleep(0.05)") -> Process:
        # Short sleeps: Python would sleep through a signal that arrives just before one long sleep begins.
        script = f"""
            import os, signal, sys, time
            def note(what):
                with open({str(self._directory / "journal")!r}, "a") as journal:
                    journal.write(what + "\\n")
            def end(*_):
                note("{name}:stopped")
                sys.exit(0)
            signal.signal(signal.SIGTERM, end)
            note("{name}:started")
            {code}
        """
        argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(script))
        return Process(name, argv, env={}, log=self._directory / f"{name}.log")

    def started(self, name: str, times: int = 1) -> Callable[[], Awaitable[bool]]:
        async def ready() -> bool:
            return self.journal.count(f"{name}:started") >= times

        return ready


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest_asyncio.fixture(loop_scope="session")
async def supervisor() -> AsyncIterator[Supervisor]:
    async with Supervisor(restart_after_s=0.02, restart_after_max_s=0.1) as running:
        yield running


async def test_start_returns_when_the_child_is_ready(supervisor: Supervisor, workshop: Workshop) -> None:
    await supervisor.start(workshop.child("a"), ready=workshop.started("a"))
    assert workshop.journal == ["a:started"]
    assert await supervisor.is_ready("a")


async def test_a_child_that_dies_comes_back(supervisor: Supervisor, workshop: Workshop) -> None:
    child = workshop.child("a")
    await supervisor.start(child, ready=workshop.started("a"))
    first = child.pid
    child.kill()
    await until(workshop.started("a", times=2))
    await supervisor.until_ready("a")
    assert supervisor.restarts("a") == 1
    assert child.pid != first


async def test_a_child_that_keeps_dying_is_restarted_ever_more_slowly(workshop: Workshop) -> None:
    async with Supervisor(restart_after_s=0.1, restart_after_max_s=0.4) as supervisor:
        began = time.monotonic()
        await supervisor.start(workshop.child("a", "sys.exit(1)"))
        await until(lambda: supervisor.restarts("a") >= 4)
        assert time.monotonic() - began >= 0.1 + 0.2 + 0.4 + 0.4


async def test_a_child_that_was_stopped_stays_stopped(supervisor: Supervisor, workshop: Workshop) -> None:
    child = workshop.child("a")
    await supervisor.start(child, ready=workshop.started("a"))
    await supervisor.stop("a")
    assert workshop.journal == ["a:started", "a:stopped"]
    assert not await supervisor.is_ready("a")
    with pytest.raises(AssertionError, match="not within"):
        await until(lambda: child.running, within=0.3)


async def test_a_stopped_child_can_be_started_again_and_is_watched_again(
    supervisor: Supervisor, workshop: Workshop
) -> None:
    child = workshop.child("a")
    await supervisor.start(child, ready=workshop.started("a"))
    await supervisor.restart("a")
    await until(workshop.started("a", times=2))
    child.kill()
    await until(workshop.started("a", times=3))


async def test_a_child_that_dies_before_it_is_ready_fails_at_once(supervisor: Supervisor, workshop: Workshop) -> None:
    async def never() -> bool:
        return False

    with pytest.raises(ProcessFailed, match=r"a ended with 3 before it was ready; its log is .*a\.log"):
        await supervisor.start(workshop.child("a", "sys.exit(3)"), ready=never, within_s=30)
    assert workshop.journal == ["a:started"]


async def test_a_child_that_is_not_ready_in_time_is_stopped_and_named(
    supervisor: Supervisor, workshop: Workshop
) -> None:
    async def never() -> bool:
        return False

    child = workshop.child("slow")
    with pytest.raises(ProcessFailed, match=r"slow wasn't ready within 0.2 s; its log is .*slow\.log"):
        await supervisor.start(child, ready=never, within_s=0.2)
    assert not child.running


async def test_a_probe_that_hangs_does_not_hang_the_start(supervisor: Supervisor, workshop: Workshop) -> None:
    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(ProcessFailed, match="wasn't ready"):
        await supervisor.start(workshop.child("a"), ready=hangs, within_s=0.2)


async def test_all_are_stopped_last_started_first(supervisor: Supervisor, workshop: Workshop) -> None:
    for name in ("a", "b", "c"):
        await supervisor.start(workshop.child(name), ready=workshop.started(name))
    await supervisor.stop_all()
    assert workshop.journal[3:] == ["c:stopped", "b:stopped", "a:stopped"]


async def test_stopping_all_reaches_suspended_and_dead_children(supervisor: Supervisor, workshop: Workshop) -> None:
    children = [workshop.child(name) for name in ("a", "b")]
    for child in children:
        await supervisor.start(child, ready=workshop.started(child.name))
    children[0].suspend()
    children[1].kill()
    await supervisor.stop_all()
    assert not any(child.running for child in children)
    assert children[1].returncode in {-signal.SIGKILL, -signal.SIGTERM, 0}


async def test_a_name_belongs_to_one_running_child(supervisor: Supervisor, workshop: Workshop) -> None:
    await supervisor.start(workshop.child("a"), ready=workshop.started("a"))
    with pytest.raises(ValueError, match="a is already running"):
        await supervisor.start(workshop.child("a"))


async def test_cancelling_a_start_leaves_no_child(supervisor: Supervisor, workshop: Workshop) -> None:
    async def never() -> bool:
        return False

    child = workshop.child("a")
    starting = asyncio.create_task(supervisor.start(child, ready=never))
    await until(workshop.started("a"))
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert not child.running


async def test_a_child_that_is_stopped_during_its_start_stays_stopped(
    supervisor: Supervisor, workshop: Workshop
) -> None:
    async def ready_when_stopped() -> bool:
        await workshop.started("a")()
        await supervisor.stop_all()
        return True

    child = workshop.child("a")
    with pytest.raises(ProcessFailed, match="a was stopped before it was ready"):
        await supervisor.start(child, ready=ready_when_stopped)
    with pytest.raises(AssertionError, match="not within"):
        await until(lambda: child.running, within=0.3)
