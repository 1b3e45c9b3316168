"""Manual syncs: kept in the database from the moment they are asked for.

So any replica can say how far one is, and one whose replica dies half-way is taken up by another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import replace
from typing import Final

import structlog

from services.sync.domain.observations import Unreached
from services.sync.domain.ports import Run, RunPart, Runs
from services.sync.handlers.keepers import Keepers, Means
from services.sync.handlers.surveys import Surveyed
from shared.errors import KeyfobError, Unavailable
from shared.events.changes import Detection

_log = structlog.get_logger()

_LOOK_S: Final = 2.0
"""Between looks for runs that somebody left unfinished."""

_NOTE_S: Final = 0.2
"""Between notes of progress."""

_AWAIT_S: Final = 0.1
"""Between looks at a run that a caller waits for."""


class RunDesk:
    """Takes manual syncs and sees to it that they are done."""

    def __init__(self, runs: Runs, means: Means, keepers: Keepers, *, at_once: int) -> None:
        """Keep runs in `runs`, and survey the sources of `keepers` by their means, `at_once` runs together.

        Each run holds a connection beside those of its surveys. Without a bound, a few impatient operators would leave
        none for looks, and every run would wait for what the others hold.
        """
        self._runs = runs
        self._means = means
        self._keepers = keepers
        self._asked = asyncio.Event()
        self._room = asyncio.Semaphore(at_once)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, sources: Collection[str], *, asked_by: str) -> Run:
        """Note a sync of these sources, by name; the work begins at once."""
        # Kept before it is answered: whoever has its id can ask any replica, also after this one died.
        run = await self._runs.open(sources, asked_by=asked_by)
        self._asked.set()
        return run

    async def wait(self, run_id: str, *, within_s: float) -> Run | None:
        """How far a run is: when it has ended, or after `within_s` seconds. None for an unknown one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while True:
            run = await self._runs.get(run_id)
            if run is None or run.state != "running" or loop.time() >= deadline:
                return run
            # Polled, since another replica may be the one that works on it.
            await asyncio.sleep(min(_AWAIT_S, deadline - loop.time()))

    async def run(self) -> None:
        """Work off runs until cancelled."""
        try:
            while True:
                # Before the look: what is asked for during it is taken up right after.
                self._asked.clear()
                with contextlib.suppress(Unavailable):
                    await self._take_up()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._asked.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _take_up(self) -> None:
        for ended in [run_id for run_id, task in self._tasks.items() if task.done()]:
            # A mistake of ours: let the service end and be started again.
            self._tasks.pop(ended).result()
        for run in await self._runs.unfinished():
            if run.id not in self._tasks:
                self._tasks[run.id] = asyncio.create_task(self._work(run.id), name=run.id)

    async def _work(self, run_id: str) -> None:
        try:
            async with self._room, self._runs.working(run_id) as mine:
                run = await self._runs.get(run_id) if mine else None
                if run is not None and run.state == "running":
                    await self._survey_all(run)
        except KeyfobError as error:
            # It stays unfinished and is taken up again.
            _log.warning("sync-postponed", run=run_id, kind=error.kind, reason=error.detail)

    async def _survey_all(self, run: Run) -> None:
        parts = {part.source: part for part in run.parts}
        noting = asyncio.create_task(self._keep_noting(run.id, parts))
        failed: Exception | None = None
        try:
            async with asyncio.TaskGroup() as surveys:
                for name in parts:
                    surveys.create_task(self._survey(name, parts))
        except* KeyfobError as errors:
            # One error and no group: whoever called takes KeyfobError, which a group of them is not.
            # Raised below: Python before 3.11.4 would make it a group again.
            failed = errors.exceptions[0]
        finally:
            # Before the last note: one of progress that came later would take the end back.
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
        if failed is not None:
            raise failed
        await self._runs.note(run.id, parts.values(), ended=True)

    async def _survey(self, name: str, parts: dict[str, RunPart]) -> None:
        keeper = self._keepers.named(name)
        # Disconnected since it was asked for, or left out as unfit.
        if keeper is None:
            parts[name] = replace(parts[name], state="failed", why="the source is not connected")
            return

        def progress(seen: int, changed: int) -> None:
            parts[name] = replace(parts[name], state="running", seen=seen, changed=changed)

        # Waits for a sweep that is under way, and then looks itself: that one may have passed what this was asked for.
        async with self._means.surveys, self._means.books.surveying(keeper.source.record.id, wait=True):
            match await self._means.surveyor.survey(keeper.source, Detection.MANUAL, progress=progress):
                case Unreached(why):
                    parts[name] = replace(parts[name], state="failed", why=why)
                case Surveyed() as surveyed:
                    state = "failed" if surveyed.why else "done"
                    seen, changed, why = surveyed.seen, surveyed.changed, surveyed.why
                    parts[name] = replace(parts[name], state=state, seen=seen, changed=changed, why=why)

    async def _keep_noting(self, run_id: str, parts: dict[str, RunPart]) -> None:
        noted: tuple[RunPart, ...] = ()
        while True:
            await asyncio.sleep(_NOTE_S)
            if (now := tuple(parts.values())) != noted:
                await self._runs.note(run_id, now, ended=False)
                noted = now
