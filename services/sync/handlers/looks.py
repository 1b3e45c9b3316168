"""A look at one path: hold it, read it, decide, say it in one commit.

Serial per path across all replicas (the books hold the path for one look at a time, and the source is read only
while it is held), parallel across paths up to a limit. So of two hints for one path the later look always reads
later, and an older version is never written over a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.sync.domain.commits import Applied, Moment, apply
from services.sync.domain.detection import Discovered, Finding, Known, Renamed, StateChanged, detect, is_older
from services.sync.domain.naming import candidates
from services.sync.domain.observations import Denied, Found, Missing, Unreached, Unread
from services.sync.domain.ports import Books, PathWork
from services.sync.domain.successors import MOST, WINDOW, Appeared, affordable, likely_successor
from services.sync.sources.port import SourceReader
from shared.events.catalog import SourceRecord
from shared.events.changes import Detection

_STEPS: Final = 3
"""Looks in a row at a path that was deleted and made again: first it goes, then it comes."""


@dataclass(frozen=True, slots=True)
class Source:
    """A connected source and its reader."""

    record: SourceRecord
    reader: SourceReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What came of a look."""

    changes: int = 0
    older: bool = False
    """The source showed the path as it was before what is known, and that was left alone."""
    keys_visible: bool | None = None
    settled: bool = True
    """False when the next look is known to find more."""


@dataclass(frozen=True, slots=True)
class Looker:
    """Looks at paths."""

    books: Books
    limit: asyncio.Semaphore
    """Looks at the same time: each takes a connection to the database."""

    async def look(self, source: Source, path: str, detected_by: Detection) -> Looked | Unread | Unreached:
        """Look at one path and commit what changed. `Unavailable` if the database is not."""
        so_far = Looked()
        for _ in range(_STEPS):
            # For each step anew: one that is looked at several times does not hold the others up meanwhile.
            async with self.limit:
                outcome = await self._once(source, path, detected_by)
            if not isinstance(outcome, Looked):
                return outcome
            so_far = replace(outcome, changes=so_far.changes + outcome.changes)
            if so_far.settled:
                break
        return so_far

    async def _once(self, source: Source, path: str, detected_by: Detection) -> Looked | Unread | Unreached:
        async with self.books.at(source.record.id, path) as work:
            if work is None:
                return Looked()
            # Together: both are behind the lock already, and the longer one is all that a look costs.
            seen, known = await asyncio.gather(source.reader.read(path, keys=True), work.known())
            if isinstance(seen, Unread | Unreached):
                return seen
            # An operator's sync takes the source's word for it: it may have been restored from a backup.
            accepts_older = detected_by is Detection.MANUAL
            findings = detect(known, seen, accept_older=accepts_older)
            if findings:
                await _say(work, source, findings, seen, detected_by)
            older = isinstance(seen, Found) and not accepts_older and is_older(known, seen)
            visible = seen.keys is not None if isinstance(seen, Found) else None
            return Looked(changes=len(findings), older=older, keys_visible=visible, settled=_settles(findings, seen))


def _settles(findings: Iterable[Finding], seen: Found | Missing | Denied) -> bool:
    """Not after something went that the source shows: the next look finds it again."""
    went = any(isinstance(one, StateChanged) and one.found is None for one in findings)
    return not (went and isinstance(seen, Found))


async def _say(
    work: PathWork,
    source: Source,
    findings: tuple[Finding, ...],
    seen: Found | Missing | Denied,
    detected_by: Detection,
) -> None:
    # As late as possible: from here on every other commit of sync waits for this one.
    moment = await work.begin(detected_by)
    # Only what is missing may have been renamed: what is deleted and still shown is where it was.
    if isinstance(seen, Missing):
        findings = await _with_successors(work, findings, moment.at)
    names: set[str] = set()
    discovered = []
    for finding in findings:
        name = await _name(work, source, finding, names) if isinstance(finding, Discovered) else ""
        applied = apply(finding, moment, name=name, source_id=source.record.id)
        work.put(applied)
        if isinstance(finding, Discovered):
            discovered.append(applied)
    if discovered:
        await _succeed(work, source, discovered, moment)


async def _name(work: PathWork, source: Source, discovered: Discovered, names: set[str]) -> str:
    """The first name that nobody has; `names` are those given in this commit."""
    wanted = candidates(source=source.record.name, path=discovered.found.path, key=discovered.key)
    for name in wanted:
        if name not in names and not await work.is_taken(name):
            names.add(name)
            return name
    raise AssertionError("candidates never end")


async def _with_successors(work: PathWork, findings: tuple[Finding, ...], now: datetime) -> tuple[Finding, ...]:
    """What went is renamed to what appeared in its place, where that is clear."""
    appeared = await work.appeared(since=now - WINDOW)
    gone = [finding.known.record for finding in findings if isinstance(finding, StateChanged)]
    if len(appeared) > MOST or not affordable(gone, appeared):
        return findings
    return tuple(
        finding if not isinstance(finding, StateChanged) else _renamed(finding.known, now, appeared) or finding
        for finding in findings
    )


def _renamed(known: Known, gone_at: datetime, appeared: Iterable[Appeared]) -> Renamed | None:
    successor = likely_successor(known.record, gone_at, appeared)
    return None if successor is None else Renamed(known, successor)


async def _succeed(work: PathWork, source: Source, discovered: Iterable[Applied], moment: Moment) -> None:
    """What went a moment ago is renamed to what is discovered now, where that is clear."""
    since = moment.at - WINDOW
    vanished = await work.vanished(since=since)
    if not vanished or len(vanished) > MOST:
        return
    new = tuple(Appeared(applied.known.record, moment.at) for applied in discovered)
    ids = {one.record.id for one in new}
    before = await work.appeared(since=since)
    appeared = [*before, *new]
    if len(before) > MOST or not affordable([one.known.record for one in vanished], appeared):
        return
    for gone in vanished:
        renamed = _renamed(gone.known, gone.at, appeared)
        if renamed is not None and renamed.successor.id in ids:
            work.put(apply(renamed, moment, name="", source_id=source.record.id))
            # One succeeds one.
            appeared = [one for one in appeared if one.record.id != renamed.successor.id]
