"""A ledger in memory: the same rules as on PostgreSQL (`tests/contract/policy`), none of the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from services.policy.domain.enrolments import Enrolment, EnrolmentRecord
from services.policy.domain.grants import next_edge
from services.policy.domain.kinds import ENROLMENT, Kind, full_id, kind_of, kind_of_model, links, name_of, natural_key
from services.policy.domain.names import is_plain
from services.policy.domain.ports import Page, Receipt
from services.policy.writing import Plan
from shared.errors import BadRequest
from shared.events.changes import Actor, PolicyAction, PolicyChange
from shared.events.policy import GrantRecord, PolicyRecord

R = TypeVar("R", bound=PolicyRecord)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    record: PolicyRecord
    created_seq: int
    event_id: str


@dataclass(slots=True)
class FakeLedger:
    """`seq` is the newest commit; `events` are in their order; `now` is the clock, set by the test."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    seq: int = 0
    kept: dict[str, Kept] = field(default_factory=dict)
    enrolments: dict[str, Enrolment] = field(default_factory=dict)
    events: list[PolicyChange] = field(default_factory=list)
    gone: list[PolicyRecord] = field(default_factory=list)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[FakeReading]:
        yield FakeReading(self)

    @asynccontextmanager
    async def open(self, actor: Actor) -> AsyncIterator[FakeWork]:
        async with self._lock:
            work = FakeWork(self, Plan(seq=self.seq + 1, now=self.now, actor=actor))
            yield work
            if not work.plan.is_empty:
                self._write(work.plan)

    def _write(self, plan: Plan) -> None:
        event_id = plan.change.id if plan.change else ""
        self.seq = plan.seq
        for entity_id in plan.deletes:
            del self.kept[entity_id]
        self.gone += plan.gone()
        for record in plan.puts.values():
            created = self.kept[record.id].created_seq if record.id in self.kept else plan.seq
            self.kept[record.id] = Kept(record, created, event_id)
        for promise in plan.promises:
            self.enrolments[promise.id] = Enrolment(record=promise, instance_id=None, seq=plan.seq, event_id=event_id)
        for enrolment_id, instance_id in plan.used.items():
            self.enrolments[enrolment_id] = replace(self.enrolments[enrolment_id], instance_id=instance_id)
        for enrolment_id in plan.dropped:
            del self.enrolments[enrolment_id]
        if plan.change:
            self.events.append(plan.change)


class FakeReading:
    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger

    @property
    def now(self) -> datetime:
        return self._ledger.now

    async def get(self, model: type[R], entity_id: str) -> R | None:
        kept = self._ledger.kept.get(entity_id)
        return kept.record if kept is not None and isinstance(kept.record, model) else None

    async def find(self, model: type[R], text: str) -> R | None:
        kind = kind_of_model(model)
        if not is_plain(text):
            return None
        if (entity_id := full_id(kind, text)) is not None:
            return await self.get(model, entity_id)
        found = [one for one in self._all(model) if natural_key(one) == text]
        return found[0] if found else None

    async def linked(self, model: type[R], *targets: str) -> tuple[R, ...]:
        return tuple(one for one in self._all(model) if links(one).issuperset(targets))

    async def page(self, model: type[R], *, links: Sequence[str], after: str | None, limit: int) -> Page[R]:
        return _page(await self.linked(model, *links), after, limit)

    async def names(self, ids: Collection[str]) -> dict[str, str]:
        return {one: name_of(self._ledger.kept[one].record) for one in ids if one in self._ledger.kept}

    async def enrolment_by_token(self, token_sha256: str) -> Enrolment | None:
        found = [one for one in self._ledger.enrolments.values() if one.record.token_sha256 == token_sha256]
        return found[0] if found else None

    async def enrolment_by_name(self, text: str) -> Enrolment | None:
        wanted = full_id(ENROLMENT, text) or text
        found = [one for one in self._ledger.enrolments.values() if wanted in {one.record.name, one.record.id}]
        return found[-1] if found else None

    async def enrolment_page(self, *, after: str | None, limit: int) -> Page[Enrolment]:
        return _page(tuple(self._ledger.enrolments.values()), after, limit)

    def _all(self, model: type[R]) -> list[R]:
        kept = sorted(self._ledger.kept.values(), key=lambda one: (one.created_seq, one.record.id))
        return [one.record for one in kept if isinstance(one.record, model)]


class FakeWork(FakeReading):
    def __init__(self, ledger: FakeLedger, plan: Plan) -> None:
        super().__init__(ledger)
        self.plan = plan

    @property
    def seq(self) -> int:
        return self.plan.seq

    async def standing(self, record: R) -> tuple[R, Receipt] | None:
        for one in self._all(type(record)):
            if natural_key(one) == natural_key(record):
                kept = self._ledger.kept[one.id]
                return one, Receipt(entity_id=one.id, seq=one.seq, event_id=kept.event_id)
        return None

    async def falling(self, entity_id: str, kinds: Collection[Kind]) -> tuple[PolicyRecord, ...]:
        return tuple(one for one in self._all(PolicyRecord) if kind_of(one) in kinds and entity_id in links(one))

    async def due_grant(self) -> GrantRecord | None:
        """The first grant that is due. What was published after its start waits for its end only."""
        for one in self._all(GrantRecord):
            edge = next_edge(one, after=self._written_at(one))
            if edge is not None and edge.at <= self.now:
                return one
        return None

    def _written_at(self, grant: GrantRecord) -> datetime:
        event_id = self._ledger.kept[grant.id].event_id
        return next(event.at for event in self._ledger.events if event.id == event_id)

    def put(self, record: PolicyRecord) -> None:
        self.plan.puts[record.id] = record

    def delete(self, record: PolicyRecord) -> None:
        self.plan.deletes[record.id] = record

    def add_enrolment(self, record: EnrolmentRecord) -> None:
        self.plan.promises.append(record)

    def use_enrolment(self, enrolment_id: str, *, instance_id: str) -> None:
        self.plan.used[enrolment_id] = instance_id

    def drop_enrolment(self, enrolment_id: str) -> None:
        self.plan.dropped.append(enrolment_id)

    def announce(
        self, action: PolicyAction, *, kind: str, entity_id: str, name: str = "", ended: Collection[str] = ()
    ) -> Receipt:
        return self.plan.announce(action, kind=kind, entity_id=entity_id, name=name, ended=tuple(ended))


def _page(items: tuple[T, ...], after: str | None, limit: int) -> Page[T]:
    if after is not None and not after.isdecimal():
        raise BadRequest("`after` must be the `next` of an earlier page.")
    start = int(after or 0)
    more = str(start + limit) if start + limit < len(items) else None
    return Page(items[start : start + limit], more)
