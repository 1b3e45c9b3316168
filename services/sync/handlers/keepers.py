"""What goes on for each connected source: hints of its change feed are followed, and a sweep catches the rest.

Hints are coalesced per path and worked off by a few workers, serial per path. A sweep comes every interval, jittered
so that many sources and replicas do not sweep in step; only one replica sweeps a source. A sweep comes at once when
this process starts (hints that it held when it ended are lost), when there were more hints than room, when the feed
says that the mount or somebody's rights were touched, and soon when the source could not be reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from services.sync.domain.feed import Hint, Ignored, PathTouched, SourceTouched
from services.sync.domain.hints import Hints, LookAt
from services.sync.domain.observations import Unreached, Unread
from services.sync.domain.ports import Books, Sight
from services.sync.handlers.looks import Looked, Looker, Source
from services.sync.handlers.surveys import Surveyor
from services.sync.sources.port import ReaderFactory
from shared.errors import KeyfobError, Unavailable
from shared.events.catalog import SourceRecord
from shared.events.changes import Detection
from shared.telemetry import current_traceparent, span

_log = structlog.get_logger()

_REFRESH_S: Final = 1.0
"""Between looks at which sources are connected: another replica's API may have changed them."""

_FEED_NOTE_S: Final = 2.0
"""Between notes that the feed was heard."""

# Without a bound the power outgrows a float after a thousand failures in a row, and that would end the service.
_MOST_DOUBLINGS: Final = 16

_PAUSE_S: Final = 0.5
"""After the database failed a look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """When sweeps come; seconds."""

    sweep_every_s: float
    jitter: float
    """Share of the interval by which a sweep may come earlier or later."""
    retry_s: float
    """The first sweep after one that did not reach the source; then twice as long, up to the interval."""

    @property
    def shortest_s(self) -> float:
        """No sweep of another replica is followed by one of ours within this."""
        return self.sweep_every_s * (1 - self.jitter)

    def next_s(self, failures: int) -> float:
        """Seconds until the next sweep after `failures` in a row."""
        base = (
            self.sweep_every_s
            if not failures
            else min(self.sweep_every_s, self.retry_s * 2 ** min(failures - 1, _MOST_DOUBLINGS))
        )
        # To both sides: on average a source is swept as often as was asked for.
        return base * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - to spread load


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every keeper works with."""

    books: Books
    looker: Looker
    surveyor: Surveyor
    surveys: asyncio.Semaphore
    """Surveys at the same time: each holds a connection to the database."""
    rhythm: Rhythm
    hint_capacity: int
    workers: int


class Keeper:
    """Keeps one source up to date."""

    def __init__(self, source: Source, means: Means) -> None:
        """Keep `source`; nothing happens before `run`."""
        self.source = source
        self._means = means
        self._hints = Hints(means.hint_capacity)
        self._hinted = asyncio.Event()
        self._wanted = asyncio.Event()
        # A start begins with a close sweep: hints that were held in memory are lost with the process.
        self._wanted.set()
        self._closely = True
        self._owed = False
        """A sweep that was asked for, or that did not reach the source, and was not made up for yet."""
        self._heard = 0
        self._found = 0

    def hear(self, hint: Hint, *, traceparent: str | None = None) -> None:
        """Take in what the change feed says; returns at once. A hint begins a trace, or goes on in the sender's."""
        self._heard += 1
        match hint:
            case PathTouched(path):
                with span("feed-hint", parent=traceparent, kind=SpanKind.SERVER, source=self.source.record.id):
                    kept = self._hints.offer(LookAt(path=path, traceparent=current_traceparent()))
                if kept:
                    self._hinted.set()
                else:
                    _log.warning("more-hints-than-room", source=self.source.record.name)
                    self.survey_soon()
            case SourceTouched():
                self._closely = True
                self.survey_soon()
            case Ignored():
                pass

    def survey_soon(self) -> None:
        """Let the next sweep come at once."""
        self._wanted.set()

    async def run(self) -> None:
        """Keep it until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            # Several, so that one path whose answer is slow does not hold up the others; never two at one path.
            for _ in range(self._means.workers):
                tasks.create_task(self._follow_hints())
            tasks.create_task(self._sweep())
            tasks.create_task(self._note_feed())

    async def _follow_hints(self) -> None:
        while True:
            hint = self._hints.take()
            if hint is None:
                # Nothing is awaited since the look: no hint can come between it and this, and be slept through.
                self._hinted.clear()
                await self._hinted.wait()
                continue
            try:
                await self._follow(hint)
            finally:
                # Whatever came of the look: a path that stayed marked would never be looked at again.
                self._hints.done(hint.path)
                # One for this path may have come meanwhile.
                self._hinted.set()

    async def _follow(self, hint: LookAt) -> None:
        try:
            with span("look", parent=hint.traceparent, source=self.source.record.id):
                outcome = await self._means.looker.look(self.source, hint.path, Detection.FEED)
            match outcome:
                case Unread() | Unreached():
                    self.survey_soon()
                case Looked(changes=changes):
                    self._found += changes
        # Ours to make up for: the vault said its word once and does not say it again.
        except Unavailable as error:
            _log.warning("look-postponed", source=self.source.record.name, reason=error.detail)
            await asyncio.sleep(_PAUSE_S)
            if not self._hints.offer(hint):
                self.survey_soon()
        except KeyfobError as error:
            _log.error("look-failed", source=self.source.record.name, kind=error.kind, reason=error.detail)

    async def _sweep(self) -> None:
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._means.rhythm.next_s(failures) if not self._wanted.is_set() else None):
                    await self._wanted.wait()
            try:
                failures = 0 if await self._sweep_once() else failures + 1
            except KeyfobError as error:
                _log.warning("sweep-failed", source=self.source.record.name, kind=error.kind, reason=error.detail)
                failures += 1

    async def _sweep_once(self) -> bool:
        """Whether the source was reached, or is another replica's to sweep now."""
        wanted = self._owed = self._wanted.is_set() or self._owed
        self._wanted.clear()
        source_id = self.source.record.id
        # Room first, lock second: a replica that waits for room must not keep another from sweeping.
        async with self._means.surveys, self._means.books.surveying(source_id, wait=False) as mine:
            if not mine:
                # Another's may have begun before what this one was asked for: then it is still owed.
                return not wanted
            since = await self._means.books.since_survey_s(source_id)
            if not wanted and since is not None and since < self._means.rhythm.shortest_s:
                return True
            return await self._survey()

    async def _survey(self) -> bool:
        """Whether the source was reached. What did not come off, for whatever reason, is owed."""
        closely, self._closely = self._closely, False
        self._owed = True
        try:
            outcome = await self._means.surveyor.survey(self.source, Detection.SWEEP, closely=closely)
            self._owed = isinstance(outcome, Unreached)
        finally:
            # Set meanwhile by what the feed said: then it stays set.
            self._closely |= closely and self._owed
        return not self._owed

    async def _note_feed(self) -> None:
        while True:
            await asyncio.sleep(_FEED_NOTE_S)
            heard, found = self._heard, self._found
            # A change may be found long after its hint was heard: behind a queue, or after a database came back.
            if heard or found:
                with contextlib.suppress(Unavailable):
                    await self._means.books.note_feed(self.source.record.id, messages=heard, changed=found)
                    # Less what was noted, and not nought: more may have come while the database was asked.
                    self._heard -= heard
                    self._found -= found


class Keepers:
    """The keepers of all connected sources."""

    def __init__(self, means: Means, readers: Mapping[str, ReaderFactory]) -> None:
        """`readers` make the reader for a source, by its provider."""
        self._means = means
        self._readers = readers
        self._keepers: dict[str, Keeper] = {}
        self._unfit: set[str] = set()
        self._changed = asyncio.Event()
        self.trouble: str | None = "the sources are not known yet"
        """Why this is not ready."""

    def named(self, name: str) -> Keeper | None:
        """The keeper of a source by its name."""
        return next((keeper for keeper in self._keepers.values() if keeper.source.record.name == name), None)

    def refresh(self) -> None:
        """Look at once which sources are connected."""
        self._changed.set()

    async def run(self) -> None:
        """Keep what is connected until cancelled."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                await self._reconcile(tasks)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH_S):
                        await self._changed.wait()
        finally:
            await _end(tasks.values())

    async def _reconcile(self, tasks: dict[str, asyncio.Task[None]]) -> None:
        try:
            sources = {record.id: record for record in await self._means.books.sources()}
        except KeyfobError as error:
            # What is kept is kept on: a database that is away takes no source away.
            self.trouble = error.detail
            return
        self.trouble = None
        # Ended before new ones begin: a source that was removed and added again has one keeper, not two.
        await _end([tasks.pop(gone) for gone in tasks.keys() - sources.keys()])
        for gone in self._keepers.keys() - sources.keys():
            del self._keepers[gone]
        self._unfit &= sources.keys()
        for source_id in sources.keys() - tasks.keys() - self._unfit:
            try:
                keeper = Keeper(self._source(sources[source_id]), self._means)
            except KeyfobError as error:
                await self._leave_out(sources[source_id], error)
                continue
            self._keepers[source_id] = keeper
            tasks[source_id] = asyncio.create_task(keeper.run(), name=f"keeper {source_id}")
        for task in tasks.values():
            if task.done():
                # A mistake of ours: let the service end and be started again.
                task.result()

    async def _leave_out(self, record: SourceRecord, error: KeyfobError) -> None:
        """Say once that a source can't be worked with, as one with plain http that came from development."""
        _log.error("source-left-out", source=record.name, kind=error.kind, reason=error.detail)
        self._unfit.add(record.id)
        with contextlib.suppress(Unavailable):
            sight = Sight(detected_by=Detection.SWEEP, reachable=False, why=error.detail)
            await self._means.books.note_sight(record.id, sight)

    def _source(self, record: SourceRecord) -> Source:
        return Source(record, self._readers[record.place.provider](record.name, record.place))


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
