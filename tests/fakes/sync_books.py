"""The books of sync in memory: the same locks and the same numbering as on PostgreSQL, nothing durable."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.sync.domain.commits import Applied, Moment
from services.sync.domain.detection import GONE, Known
from services.sync.domain.ports import Sight, Vanished
from services.sync.domain.successors import Appeared
from shared.events.catalog import KvSource, ReferenceRecord, ReferenceState, SourceRecord
from shared.events.changes import Detection, VaultChange


def a_source(name: str = "main") -> SourceRecord:
    """A connected source."""
    return SourceRecord(id=f"source/{name}", seq=1, revision=1, name=name, place=KvSource(origin="http://vault:8200"))


@dataclass
class FakeBooks:
    """What is known, and everything that was said."""

    connected: dict[str, SourceRecord] = field(default_factory=dict)
    references: dict[str, Known] = field(default_factory=dict)
    changes: list[VaultChange] = field(default_factory=list)
    feed_notes: list[tuple[int, int]] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    survey_age_s: float | None = None
    """How long ago the last survey ended that reached its source."""
    others_survey: bool = False
    """Whether another replica is surveying."""
    seq: int = 0
    now: datetime = datetime(2026, 6, 1, tzinfo=UTC)
    discovered_at: dict[str, datetime] = field(default_factory=dict)
    gone_at: dict[str, datetime] = field(default_factory=dict)
    paths: defaultdict[tuple[str, str], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    counter: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def at(self, source_id: str, path: str) -> AsyncIterator[FakeWork | None]:
        async with self.paths[source_id, path]:
            if source_id not in self.connected:
                yield None
                return
            work = FakeWork(self, source_id, path)
            try:
                yield work
                work.commit()
            finally:
                if work.moment is not None:
                    self.counter.release()

    async def sources(self) -> tuple[SourceRecord, ...]:
        return tuple(self.connected.values())

    async def snapshot(self, source_id: str) -> dict[str, tuple[Known, ...]]:
        found: dict[str, tuple[Known, ...]] = {}
        for known in self.references.values():
            if known.record.source_id == source_id:
                found[known.record.path] = (*found.get(known.record.path, ()), known)
        return found

    @asynccontextmanager
    async def surveying(self, source_id: str, *, wait: bool) -> AsyncIterator[bool]:
        yield not self.others_survey

    async def since_survey_s(self, source_id: str) -> float | None:
        return self.survey_age_s

    async def note_sight(self, source_id: str, sight: Sight) -> None:
        self.sights.append(sight)
        if sight.reachable and self.survey_age_s is not None:
            self.survey_age_s = 0.0

    async def note_feed(self, source_id: str, *, messages: int, changed: int) -> None:
        self.feed_notes.append((messages, changed))

    def at_path(self, path: str) -> dict[str | None, ReferenceRecord]:
        """The references at a path by key."""
        found = [known.record for known in self.references.values() if known.record.path == path]
        return {record.key: record for record in found}

    def told(self, path: str) -> list[tuple[str, str, str]]:
        """(kind, version, state) of everything that was said about a path, in order."""
        ids = {record.id for record in self.at_path(path).values()}
        mine = [change for change in self.changes if change.reference_id in ids]
        return [(change.kind.value, change.version, change.state.value) for change in mine]


@dataclass(slots=True)
class FakeWork:
    """One transaction."""

    books: FakeBooks
    source_id: str
    path: str
    moment: Moment | None = None
    said: list[Applied] = field(default_factory=list)

    async def known(self) -> tuple[Known, ...]:
        return (await self.books.snapshot(self.source_id)).get(self.path, ())

    async def begin(self, detected_by: Detection) -> Moment:
        await self.books.counter.acquire()
        self.moment = Moment(seq=self.books.seq + 1, at=self.books.now, detected_by=detected_by)
        return self.moment

    async def is_taken(self, name: str) -> bool:
        return any(known.record.name == name for known in self.books.references.values())

    async def appeared(self, *, since: datetime) -> tuple[Appeared, ...]:
        at = self.books.discovered_at
        mine = [one.record for one in self.books.references.values() if one.record.source_id == self.source_id]
        taken = {known.record.successor_id for known in self.books.references.values()}
        fitting = [one for one in mine if one.state is ReferenceState.ACTIVE and one.id not in taken]
        active = [one for one in fitting if at[one.id] >= since]
        return tuple(Appeared(one, at[one.id]) for one in active)

    async def vanished(self, *, since: datetime) -> tuple[Vanished, ...]:
        at = self.books.gone_at
        mine = [one for one in self.books.references.values() if one.record.source_id == self.source_id]
        removed = [one for one in mine if one.record.state is ReferenceState.REMOVED and at[one.record.id] >= since]
        return tuple(Vanished(one, at[one.record.id]) for one in removed)

    def put(self, applied: Applied) -> None:
        assert self.moment is not None
        assert applied.known.record.seq == self.moment.seq
        assert applied.known.record.id not in {one.known.record.id for one in self.said}
        self.said.append(applied)

    def commit(self) -> None:
        if self.moment is None:
            return
        assert self.said, "a commit that says nothing is a hole"
        self.books.seq = self.moment.seq
        self.books.now += timedelta(seconds=1)
        for applied in self.said:
            self._keep(applied.known)
            if applied.change is not None:
                self.books.changes.append(applied.change)
        assert len({one.record.name for one in self.books.references.values()}) == len(self.books.references)

    def _keep(self, known: Known) -> None:
        record, before = known.record, self.books.references.get(known.record.id)
        assert record.revision == (1 if before is None else before.record.revision + 1)
        self.books.references[record.id] = known
        assert self.moment is not None
        self.books.discovered_at.setdefault(record.id, self.moment.at)
        if record.state in GONE:
            self.books.gone_at.setdefault(record.id, self.moment.at)
        else:
            self.books.gone_at.pop(record.id, None)
