"""What sync's handlers need from outside: a transaction about one path, the sources, the runs of manual syncs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.sync.domain.commits import Applied, Edit, Moment
from services.sync.domain.detection import Known
from services.sync.domain.successors import Appeared
from shared.events.catalog import KvSource, ReferenceRecord, ReferenceState, SourceRecord
from shared.events.changes import Detection


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was committed; `event_id` is what a caller may wait for, and empty when nobody needs to act."""

    entity_id: str
    seq: int
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Connected:
    """A source that is connected now."""

    record: SourceRecord
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Edited:
    """A reference as people want it now."""

    record: ReferenceRecord
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Vanished:
    """A reference that is gone and has no successor yet, and since when."""

    known: Known
    at: datetime


class Work(Protocol):
    """A transaction that may change references."""

    async def begin(self, detected_by: Detection) -> Moment:
        """Take the commit's number; from here all other commits of this service wait, so do little."""
        ...

    async def is_taken(self, name: str) -> bool:
        """Whether a living reference has that name. Certain only after `begin`."""
        ...

    def put(self, applied: Applied) -> None:
        """Say what one reference is from this commit on, and what happened to it; once for each."""
        ...


class PathWork(Work, Protocol):
    """One path of one source, in a transaction that holds it alone, across all replicas, until it ends."""

    async def known(self) -> tuple[Known, ...]:
        """The references that point to the path, those that are gone included."""
        ...

    async def appeared(self, *, since: datetime) -> tuple[Appeared, ...]:
        """Active references of this source that were discovered since then and succeed no other yet.

        More than `successors.MOST` tell only that there are too many: some may be left out.
        """
        ...

    async def vanished(self, *, since: datetime) -> tuple[Vanished, ...]:
        """References of this source that went since then and that no other work holds; as many as of `appeared`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How a source showed itself in a survey."""

    detected_by: Detection
    reachable: bool
    why: str = ""
    """What is wrong with it, safe to show; empty when nothing is."""
    seen: int = 0
    changed: int = 0
    took_s: float = 0.0
    denied_folders: int = 0
    older: int = 0
    """Paths that the source shows as they were before what is known: a lagging standby, or a restored backup."""
    keys_visible: bool | None = None


class Books(Protocol):
    """What is known of sources and references."""

    def at(self, source_id: str, path: str) -> AbstractAsyncContextManager[PathWork | None]:
        """Work on one path: committed when the block ends and `begin` was called, undone if it fails.

        None when the source is no longer connected.
        """
        ...

    async def sources(self) -> tuple[SourceRecord, ...]:
        """All connected sources."""
        ...

    async def snapshot(self, source_id: str) -> dict[str, tuple[Known, ...]]:
        """All references of a source by path, to compare with; a change is decided by `at` alone."""
        ...

    def surveying(self, source_id: str, *, wait: bool) -> AbstractAsyncContextManager[bool]:
        """Be the only one, across replicas, who surveys a source. False when another does and `wait` is off."""
        ...

    async def since_survey_s(self, source_id: str) -> float | None:
        """Seconds since the last survey of the source ended, by the database's clock; None before the first."""
        ...

    async def note_sight(self, source_id: str, sight: Sight) -> None:
        """Keep how the source showed itself; a change of `reachable` is a commit."""
        ...

    async def note_feed(self, source_id: str, *, messages: int, changed: int) -> None:
        """The change feed was heard: `messages` more, and `changed` more changes because of it."""
        ...


class Register(Protocol):
    """What administrators do to sources and references, and what they read."""

    async def connect(self, name: str, place: KvSource) -> Connected:
        """Keep a source. The same again changes nothing; `Conflict` if the name is another's."""
        ...

    async def disconnect(self, source_id: str) -> Receipt | None:
        """Forget a source, its references with it, in one commit; None when there is no such source."""
        ...

    async def edit(self, reference_id: str, edit: Edit) -> Edited | None:
        """Let a reference be called or described as people want it; `Conflict` if the name is another's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """One source's part of a manual sync."""

    source: str
    state: str
    """`waiting`, `running`, `done` or `failed`."""
    seen: int = 0
    changed: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A manual sync: who asked, when, and how far it is."""

    id: str
    state: str
    """`running`, `done` or `failed`."""
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    parts: tuple[RunPart, ...]


class Runs(Protocol):
    """Manual syncs, visible to every replica."""

    async def open(self, sources: Collection[str], *, asked_by: str) -> Run:
        """Note a run of these sources, by name."""
        ...

    async def get(self, run_id: str) -> Run | None:
        """How far a run is."""
        ...

    async def unfinished(self) -> tuple[Run, ...]:
        """Runs that nobody has ended: this replica's, another's, or those of one that died."""
        ...

    def working(self, run_id: str) -> AbstractAsyncContextManager[bool]:
        """Be the only one who works on a run; False when another does."""
        ...

    async def note(self, run_id: str, parts: Iterable[RunPart], *, ended: bool) -> None:
        """Keep how far the run is; it failed if any part did."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceView:
    """A reference as people see it. Never a value."""

    id: str
    name: str
    source: str
    source_id: str
    path: str
    key: str | None
    version: str
    state: ReferenceState
    """As it matters now: of an unreachable source, what was active is `source-unreachable`."""
    successor_id: str | None
    owner: str
    description: str
    changed_at: datetime
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which references to show: all of those that are given must hold."""

    source: str | None = None
    state: ReferenceState | None = None
    name: str | None = None
    """Part of the name, whatever its case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageView:
    """How well one source is covered."""

    source: str
    source_id: str
    reachable: bool
    why: str
    references: int
    active: int
    pending_deletion: int
    unreadable: int
    gone: int
    """Removed or renamed."""
    surveyed_at: datetime | None
    survey_s: float
    seen: int
    """Paths in the last survey."""
    denied_folders: int
    older: int
    """Paths that the source shows as they were before what is known; a manual sync accepts them."""
    keys_visible: bool | None
    """Whether the names inside secrets can be seen; None before any was looked at."""
    feed_at: datetime | None
    """When the change feed was last heard."""
    feed_messages: int
    found_by_feed: int
    found_by_sweep: int
    """Changes that no feed told, or that it told too late."""
    found_by_manual: int


class Views(Protocol):
    """What people read."""

    async def sources(self, *, after: str, limit: int) -> tuple[SourceRecord, ...]:
        """Sources by name, behind `after`."""
        ...

    async def source(self, text: str) -> SourceRecord | None:
        """One source by id or name."""
        ...

    async def references(self, wanted: Wanted, *, after: str, limit: int) -> tuple[ReferenceView, ...]:
        """References by name, behind `after`."""
        ...

    async def reference(self, reference_id: str) -> ReferenceView | None:
        """One reference."""
        ...

    async def coverage(self) -> tuple[CoverageView, ...]:
        """All sources by name."""
        ...
