"""What the notifier keeps, in memory: the port `Notes`, with the rules of the real one that handlers rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from services.notifier.domain.convergence import Dropped, GatewayProgress, Published, Settled
from services.notifier.domain.expectations import Departure
from services.notifier.domain.ports import Noted, NotedAlert
from services.notifier.domain.receipts import ResolverRun
from shared.errors import Unavailable
from shared.events.alerts import Alert


@dataclass
class FakeNotes:
    """One database. `away` makes the next so many transactions fail at their beginning."""

    noted: dict[str, Published] = field(default_factory=dict)
    settled: dict[str, Settled] = field(default_factory=dict)
    gone: dict[str, Departure] = field(default_factory=dict)
    feed: list[NotedAlert] = field(default_factory=list)
    progress: list[tuple[Sequence[GatewayProgress], Sequence[ResolverRun]]] = field(default_factory=list)
    forgotten: list[datetime] = field(default_factory=list)
    transactions: int = 0
    away: int = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[FakeNotes]:
        self.transactions += 1
        if self.away:
            self.away -= 1
            raise Unavailable("the database is away")
        yield self

    async def note(self, published: Sequence[Published]) -> None:
        for one in published:
            self.noted.setdefault(one.notice.id, one)

    async def departures(self, instance_ids: Collection[str]) -> dict[str, Departure]:
        return {one: self.gone[one] for one in instance_ids if one in self.gone}

    async def depart(self, departures: Sequence[Departure]) -> None:
        for one in departures:
            known = self.gone.get(one.instance_id)
            if known is None or known.policy_seq < one.policy_seq:
                self.gone[one.instance_id] = one

    async def find(self, notice_or_cause: str) -> Noted | None:
        for one in self.noted.values():
            if notice_or_cause in {one.notice.id, one.notice.cause_id}:
                return self._noted(one)
        return None

    async def newest(self, *, limit: int, before_offset: int | None = None) -> list[Noted]:
        found = sorted(self.noted.values(), key=lambda one: -one.offset)
        return [self._noted(one) for one in found if before_offset is None or one.offset < before_offset][:limit]

    async def settle(self, gateways: Sequence[GatewayProgress], resolvers: Sequence[ResolverRun]) -> int:
        self.progress.append((tuple(gateways), tuple(resolvers)))
        return 0

    async def keep_alerts(self, alerts: Sequence[Alert]) -> None:
        known = {one.alert.id for one in self.feed}
        new = [one for one in alerts if one.id not in known]
        self.feed += [NotedAlert(len(self.feed) + n, one) for n, one in enumerate(new, 1)]

    async def alerts(self, *, limit: int, before_n: int | None = None) -> list[NotedAlert]:
        return [one for one in reversed(self.feed) if before_n is None or one.n < before_n][:limit]

    async def forget(self, *, before: datetime) -> None:
        self.forgotten.append(before)

    def _noted(self, one: Published) -> Noted:
        settled = self.settled.get(one.notice.id, {})
        all_did = bool(one.members) and set(settled) == set(one.members)
        last = max((proof.at for proof in settled.values() if isinstance(proof, Dropped)), default=None)
        return Noted(one, settled, last if all_did else None)
