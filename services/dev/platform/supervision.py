"""Keeps named processes running: starts, awaits readiness, restarts what dies, stops in reverse order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import aiohttp
import structlog

from services.dev.platform.failures import ProcessFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.dev.platform.processes import Process

Probe = str | Callable[[], Awaitable[bool]]
"""Says whether a process is ready: a URL that answers 2xx, or an async function that returns True."""

_log = structlog.get_logger(__name__)

_PROBE_EVERY_S = 0.03
_PROBE_TIMEOUT_S = 2.0
_STEADY_AFTER_S = 10.0
"""A child that ran this long had nothing wrong with its start: its next restart is quick again."""


async def probe_once(probe: Probe, *, within_s: float = _PROBE_TIMEOUT_S) -> bool:
    """Ask the probe once; a refused or slow answer is False."""
    try:
        async with asyncio.timeout(min(within_s, _PROBE_TIMEOUT_S)):
            if not isinstance(probe, str):
                return await probe()
            async with aiohttp.ClientSession() as session, session.get(probe) as answer:
                return answer.ok
    except (OSError, TimeoutError, aiohttp.ClientError):
        return False


async def until_ready(process: Process, probe: Probe, *, within_s: float) -> None:
    """Return when the probe says yes.

    Raises ProcessFailed when the process ends first, or isn't ready after `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while not await probe_once(probe, within_s=deadline - time.monotonic()):
        if not process.running:
            raise ProcessFailed(process.name, f"ended with {process.returncode} before it was ready", process.log)
        if time.monotonic() >= deadline:
            raise ProcessFailed(process.name, f"wasn't ready within {within_s:g} s", process.log)
        await asyncio.sleep(_PROBE_EVERY_S)


@dataclass(slots=True)
class _Child:
    process: Process
    probe: Probe | None
    within_s: float
    restarts: int = 0
    stopped: bool = False
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class Supervisor:
    """Runs processes by name and restarts those that end without having been stopped.

    Restarts wait 0.2 s, doubling up to 5 s while the child keeps dying young.
    """

    def __init__(self, *, restart_after_s: float = 0.2, restart_after_max_s: float = 5.0) -> None:
        self._first_pause_s = restart_after_s
        self._longest_pause_s = restart_after_max_s
        self._children: dict[str, _Child] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_all()

    @property
    def processes(self) -> Mapping[str, Process]:
        """The processes under supervision, in the order of their start."""
        return {name: child.process for name, child in self._children.items()}

    def restarts(self, name: str) -> int:
        """How often this process was restarted after it died by itself."""
        return self._children[name].restarts

    async def start(self, process: Process, *, ready: Probe | None = None, within_s: float = 30.0) -> None:
        """Start a process, wait until it is ready, and keep it running from then on.

        Raises ProcessFailed, with the process stopped, when it ends or isn't ready within `within_s` seconds;
        ValueError when the name is taken by another process.
        """
        known = self._children.get(process.name)
        if known and known.process is not process and known.process.running:
            message = f"{process.name} is already running"
            raise ValueError(message)
        child = _Child(process, ready, within_s)
        # Known before it is ready: whoever stops everything meanwhile must stop this one too.
        self._children[process.name] = child
        process.start()
        try:
            await self._until_started(child)
        except BaseException:
            await process.stop()
            raise
        child.watch = asyncio.create_task(self._keep_running(child), name=f"watch over {process.name}")

    async def _until_started(self, child: _Child) -> None:
        if child.probe is not None:
            await until_ready(child.process, child.probe, within_s=child.within_s)
        # Its probe may have said yes just before the end: with a watch it would come back.
        if child.stopped:
            raise ProcessFailed(child.process.name, "was stopped before it was ready", child.process.log)

    async def is_ready(self, name: str) -> bool:
        """Whether the process runs and its probe says yes, now."""
        child = self._children[name]
        return child.process.running and (child.probe is None or await probe_once(child.probe))

    async def until_ready(self, name: str, *, within_s: float | None = None) -> None:
        """Return when the process is ready, through restarts if need be.

        Raises ProcessFailed after `within_s` seconds (default: as at its start).
        """
        child = self._children[name]
        limit_s = child.within_s if within_s is None else within_s
        deadline = time.monotonic() + limit_s
        while not await self.is_ready(name):
            if time.monotonic() >= deadline:
                raise ProcessFailed(name, f"wasn't ready within {limit_s:g} s", child.process.log)
            await asyncio.sleep(_PROBE_EVERY_S)

    async def stop(self, name: str, grace_s: float = 10.0) -> None:
        """Stop one process; it stays stopped until `restart`."""
        child = self._children[name]
        child.stopped = True
        if child.watch is not None:
            # The watch first: it would take this end for a death, and start the process again.
            child.watch.cancel()
            await asyncio.gather(child.watch, return_exceptions=True)
            child.watch = None
        await child.process.stop(grace_s)

    async def restart(self, name: str) -> None:
        """Stop the process if it runs, start it, and wait until it is ready."""
        await self.stop(name)
        child = self._children[name]
        await self.start(child.process, ready=child.probe, within_s=child.within_s)

    async def stop_all(self, grace_s: float = 10.0) -> None:
        """Stop everything, last started first."""
        for name in reversed(list(self._children)):
            await self.stop(name, grace_s)

    async def _keep_running(self, child: _Child) -> None:
        pause_s = self._first_pause_s
        while True:
            since = time.monotonic()
            code = await child.process.wait()
            if time.monotonic() - since > _STEADY_AFTER_S:
                pause_s = self._first_pause_s
            _log.warning("process.died", process=child.process.name, returncode=code, restart_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._longest_pause_s)
            await self._start_again(child)

    async def _start_again(self, child: _Child) -> None:
        try:
            child.process.start()
        except ProcessFailed as failure:
            # Not raised: the last end still stands, so the watch comes by again, after a longer pause.
            _log.error("process.not_restarted", reason=str(failure))
            return
        child.restarts += 1
