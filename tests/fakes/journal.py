"""The log in memory: the port `Journal`, with the rules of the real one that handlers rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from services.audit.domain.echoes import Echo
from services.audit.domain.entries import Entry
from services.audit.domain.leases import PRESUMED_AFTER, Ended, LeaseFact, Opened
from services.audit.domain.ports import LOG, LeaseQuery, LeaseView, RecordQuery
from services.audit.domain.sightings import KEPT, Sighting
from services.audit.domain.streams import Head
from shared import topics
from shared.events.audit import AuditRecord


@dataclass
class FakeJournal:
    """One database: what was written, and how often a transaction was begun. One that fails leaves nothing."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    log: list[AuditRecord] = field(default_factory=list)
    streams: dict[str, Head] = field(default_factory=dict)
    given: dict[str, Opened] = field(default_factory=dict)
    ends: dict[tuple[str, str], Ended] = field(default_factory=dict)
    echoes: dict[Echo, datetime] = field(default_factory=dict)
    assertions: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    transactions: int = 0
    failing: list[Exception] = field(default_factory=list)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeJournal]:
        """Kept if the block ends well, as with a database."""
        self.transactions += 1
        names = ("entries", "log", "streams", "given", "ends", "echoes", "assertions")
        before = {name: getattr(self, name).copy() for name in names}
        try:
            yield self
            self._commit()
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def _commit(self) -> None:
        if self.failing:
            raise self.failing.pop(0)

    async def write(self, entries: Sequence[Entry]) -> int:
        """Each cause once, numbered densely."""
        before = len(self.log)
        for entry in entries:
            place = (entry.cause.topic, entry.cause.key)
            if place not in self.entries:
                self.entries[place] = entry
                self.log.append(entry.numbered(LOG, len(self.log) + 1))
        return len(self.log) - before

    async def heads(self, streams: Collection[str]) -> Mapping[str, Head]:
        return {stream: self.streams[stream] for stream in streams if stream in self.streams}

    async def keep_heads(self, heads: Mapping[str, Head]) -> None:
        self.streams.update(heads)

    async def apply(self, facts: Iterable[LeaseFact]) -> None:
        for fact in facts:
            match fact:
                case Opened():
                    if fact.released or fact.lease_id not in self.given:
                        self.given[fact.lease_id] = fact
                case Ended():
                    self.ends.setdefault((fact.lease_id, fact.instance_id or ""), fact)

    async def hashes(self, keys: Collection[str]) -> Mapping[str, str]:
        known = ((key, self.entries.get((topics.ACCESS, key))) for key in keys)
        return {key: entry.cause.hash for key, entry in known if entry is not None}

    async def opened(self, lease_ids: Collection[str]) -> Mapping[str, Opened]:
        return {one: self.given[one] for one in lease_ids if one in self.given}

    async def await_records(self, echoes: Sequence[Echo], *, since: datetime) -> None:
        for echo in echoes:
            self.echoes.setdefault(echo, since)

    async def awaited(self, *, before: datetime, limit: int) -> list[Echo]:
        return [echo for echo, since in self.echoes.items() if since < before][:limit]

    async def forget_echoes(self, echoes: Sequence[Echo]) -> None:
        for echo in echoes:
            del self.echoes[echo]

    async def sight(self, sightings: Sequence[Sighting], *, at: datetime) -> Mapping[str, str]:
        self.assertions = {name: seen for name, seen in self.assertions.items() if seen[1] >= at - KEPT}
        for one in sightings:
            self.assertions.setdefault(one.assertion, (one.resolution_id, at))
        return {one.assertion: self.assertions[one.assertion][0] for one in sightings}

    async def records(self, query: RecordQuery) -> list[AuditRecord]:
        """By number; of the filters only the action and the reference, the rest is the store's."""
        found = [
            one
            for one in self.log
            if one.n > query.after
            and query.action in {None, one.action}
            and (query.reference is None or any(query.reference in {ref.id, ref.name} for ref in one.references))
        ]
        return found[: query.limit]

    async def leases(self, query: LeaseQuery) -> list[LeaseView]:
        """By id, given by then for certain or presumed."""
        found = [self._view(self.given[lease_id]) for lease_id in sorted(self.given) if lease_id > query.after]
        return [view for view in found if _asked(view, query)][: query.limit]

    def _view(self, opened: Opened) -> LeaseView:
        ended = self.ends.get((opened.lease_id, opened.instance_id)) or self.ends.get((opened.lease_id, ""))
        return LeaseView(opened, None, "") if ended is None else LeaseView(opened, ended.at, ended.why)

    def reasons(self) -> list[str]:
        """Of everything on record, in order."""
        return [entry.reason for entry in self.entries.values()]


def _asked(view: LeaseView, query: LeaseQuery) -> bool:
    opened = view.opened
    given = query.given_by is None or opened.released or opened.opened_at < query.given_by - PRESUMED_AFTER
    alive = query.open_at is None or (
        opened.expires_at > query.open_at and (view.ended_at is None or view.ended_at > query.open_at)
    )
    named = query.reference is None or query.reference in {opened.reference_id, opened.reference_name}
    return given and alive and named
