"""A survey: list a whole source and look closer wherever it differs from what is known.

It is the net under the change feed, and what an operator asks for. A survey concludes nothing from what a listing
lacks: each known path that was not listed is looked at on its own. One that could not be finished changes nothing
but what its looks already committed, and leaves the source marked as not reachable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.sync.domain.detection import GONE, Known, detect, is_older
from services.sync.domain.observations import Found, Observation, Unreached, Unread
from services.sync.domain.ports import Books, Sight
from services.sync.handlers.looks import Looked, Looker, Source
from services.sync.sources.port import FolderDenied, Listed
from shared.errors import KeyfobError, SignatureInvalid, TooLarge
from shared.events.changes import Detection
from shared.telemetry import span

_WORKERS: Final = 8
"""Paths of one source that are read at the same time."""

_log = structlog.get_logger()

Progress = Callable[[int, int], None]
"""Told (paths seen, changes) as they grow."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A survey that was finished."""

    seen: int
    changed: int
    refused: int = 0
    """Paths whose rows in the database somebody else wrote: nothing is said about them until that is mended."""
    unread: int = 0
    """Paths that the source shows and that could not be read, or not be kept."""

    @property
    def why(self) -> str:
        """What is wrong although it was finished, safe to show; empty when nothing is."""
        words = {
            "paths have references in the database that sync did not write": self.refused,
            "paths could not be read": self.unread,
        }
        return "; ".join(f"{count} {what}" for what, count in words.items() if count)


@dataclass(slots=True)
class _Tally:
    """What one survey has come to so far."""

    progress: Progress
    closely: bool
    seen: int = 0
    changed: int = 0
    older: int = 0
    denied_folders: int = 0
    refused: int = 0
    unread: int = 0
    keys_visible: bool | None = None
    listed: set[str] = field(default_factory=set)
    unreached: Unreached | None = None

    def saw(self, changes: int = 0, *, older: bool = False) -> None:
        """One path more."""
        self.seen += 1
        self.changed += changes
        self.older += older
        self.progress(self.seen, self.changed)


@dataclass(frozen=True, slots=True)
class Surveyor:
    """Surveys sources."""

    books: Books
    looker: Looker

    async def survey(
        self,
        source: Source,
        detected_by: Detection,
        *,
        closely: bool = True,
        progress: Progress = lambda _seen, _changed: None,
    ) -> Surveyed | Unreached:
        """Survey one source. The caller holds `Books.surveying`. `Unavailable` if the database is not there.

        `closely` reads every path, even where the listing says that nothing changed: a path that was closed to us is
        still listed. Otherwise a source whose listings tell enough costs requests by folders and pages only.
        """
        began, tally = time.monotonic(), _Tally(progress, closely)
        with span("survey", source=source.record.id, detected_by=detected_by.value):
            # Unlocked, and good enough to compare with: whatever differs is looked at again behind the path's lock.
            known = await self.books.snapshot(source.record.id)
            await self._each(source, self._paths(source, known, tally), known, tally, detected_by)
        sight = _sight(tally, detected_by, took_s=time.monotonic() - began)
        await self.books.note_sight(source.record.id, sight)
        if tally.unreached is not None:
            _log.warning("source-not-reached", source=source.record.name, why=tally.unreached.why)
            return tally.unreached
        return _surveyed(tally)

    async def _paths(self, source: Source, known: dict[str, tuple[Known, ...]], tally: _Tally) -> AsyncIterator[Listed]:
        """Everything that is to be compared: what is listed, then what is known and was not listed."""
        async for entry in source.reader.entries():
            match entry:
                case Unreached():
                    tally.unreached = entry
                    return
                case FolderDenied():
                    tally.denied_folders += 1
                case Listed(path) if path not in tally.listed:
                    tally.listed.add(path)
                    yield entry
        # A list may lack what is there (a page that moved, a closed folder): each absence is asked about by itself.
        for path, references in known.items():
            # What is gone already is not asked for again: it is found when it is listed.
            if path not in tally.listed and any(one.record.state not in GONE for one in references):
                yield Listed(path)

    async def _each(
        self,
        source: Source,
        paths: AsyncIterator[Listed],
        known: dict[str, tuple[Known, ...]],
        tally: _Tally,
        detected_by: Detection,
    ) -> None:
        """Compare all paths, a few at a time; stop at the first that shows the source as not reachable."""
        # Short: the list is read no faster than its paths are compared, and no further than a source that goes away.
        waiting: asyncio.Queue[Listed | None] = asyncio.Queue(_WORKERS)

        async def work() -> None:
            while (entry := await waiting.get()) is not None:
                # The queue is still emptied, so that whoever fills it comes to its end.
                if tally.unreached is None:
                    await self._compare(source, entry, known.get(entry.path, ()), tally, detected_by)

        failed: Exception | None = None
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(_WORKERS):
                    workers.create_task(work())
                async for entry in paths:
                    await waiting.put(entry)
                for _ in range(_WORKERS):
                    await waiting.put(None)
        except* KeyfobError as errors:
            # Of several, the first says what is wrong. Raised below: Python before 3.11.4 would make it a group again.
            failed = errors.exceptions[0]
        if failed is not None:
            raise failed

    async def _compare(
        self, source: Source, entry: Listed, known: tuple[Known, ...], tally: _Tally, detected_by: Detection
    ) -> None:
        seen: Observation | None = None if tally.closely else entry.found
        if seen is None:
            seen = await source.reader.read(entry.path, keys=False)
        if isinstance(seen, Unread | Unreached):
            _miss(source, tally, seen)
            return
        if isinstance(seen, Found) and is_older(known, seen) and detected_by is not Detection.MANUAL:
            tally.saw(older=True)
            return
        # Whether names can be seen by now shows only in a look that asks for them, which costs entries in the feed.
        keyless = detected_by is Detection.MANUAL and any(one.record.key is None for one in known)
        if not keyless and not detect(known, seen, accept_older=True):
            tally.saw()
            return
        try:
            outcome = await self.looker.look(source, entry.path, detected_by)
        except SignatureInvalid as error:
            # One row that somebody else wrote must not keep the others from being seen.
            _log.critical("reference-not-ours", source=source.record.name, reason=error.detail)
            tally.refused += 1
            return
        except TooLarge as error:
            outcome = Unread(entry.path, error.detail)
        match outcome:
            case Looked(changes=changes, older=older, keys_visible=visible):
                tally.keys_visible = tally.keys_visible if visible is None else visible
                tally.saw(changes, older=older)
            case Unread() | Unreached():
                _miss(source, tally, outcome)


def _miss(source: Source, tally: _Tally, seen: Unread | Unreached) -> None:
    """A path that nothing is learned about. Only a source that is away ends the survey."""
    match seen:
        case Unread(why=why):
            # Without the path: it is somebody's words, and a log has other readers than the catalog.
            _log.warning("path-not-read", source=source.record.name, why=why)
            tally.unread += 1
        case Unreached():
            tally.unreached = tally.unreached or seen


def _surveyed(tally: _Tally) -> Surveyed:
    return Surveyed(tally.seen, tally.changed, tally.refused, tally.unread)


def _sight(tally: _Tally, detected_by: Detection, *, took_s: float) -> Sight:
    return Sight(
        detected_by=detected_by,
        reachable=tally.unreached is None,
        why=_surveyed(tally).why if tally.unreached is None else tally.unreached.why,
        seen=tally.seen,
        changed=tally.changed,
        took_s=took_s,
        denied_folders=tally.denied_folders,
        older=tally.older,
        keys_visible=tally.keys_visible,
    )
