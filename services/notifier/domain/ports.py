"""What the notifier needs from outside: a way to publish, and one transaction on what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.notifier.domain.convergence import GatewayProgress, Published, Settled
from services.notifier.domain.expectations import Departure
from services.notifier.domain.receipts import ResolverRun
from shared.events.alerts import Alert
from shared.events.contract import Contract

Clock = Callable[[], datetime]
"""Now, UTC."""


class Publish(Protocol):
    """Puts one event on its topic."""

    async def __call__(
        self, contract: Contract, *, event_id: str, key: str | None, traceparent: str | None = None
    ) -> None:
        """Return once all in-sync replicas have it; `Unavailable` when that is not certain: repeat it, same id."""
        ...


class Expected(Protocol):
    """Freezes who must act on notices."""

    async def __call__(self, published: Sequence[Published], notes: Notes) -> tuple[Published, ...]:
        """The same notices with their members.

        Looks only after everything that was in `policy` and `receipts` when it was called has been taken in:
        `Unavailable` when that can't be said.
        """
        ...


@dataclass(frozen=True, slots=True)
class Noted:
    """A notice as it is kept: who was expected, who proved it, and when the last one did."""

    published: Published
    settled: Settled
    converged_at: datetime | None


@dataclass(frozen=True, slots=True)
class NotedAlert:
    """An alert of the feed; `n` is its place."""

    n: int
    alert: Alert


class Notes(Protocol):
    """One transaction on what the notifier keeps; it commits when its context ends without an error."""

    async def note(self, published: Sequence[Published]) -> None:
        """Keep notices with their members and the departures that they tell of; one that is known changes nothing."""
        ...

    async def departures(self, instance_ids: Collection[str]) -> dict[str, Departure]:
        """The newest notice that told of the end of each of these instances."""
        ...

    async def depart(self, departures: Sequence[Departure]) -> None:
        """Keep departures; an older one than is known changes nothing."""
        ...

    async def find(self, notice_or_cause: str) -> Noted | None:
        """A notice by its own id or by that of the event that caused it."""
        ...

    async def newest(self, *, limit: int, before_offset: int | None = None) -> list[Noted]:
        """Notices, newest first."""
        ...

    async def settle(self, gateways: Sequence[GatewayProgress], resolvers: Sequence[ResolverRun]) -> int:
        """Write what members proved; the number of notices that have converged by it."""
        ...

    async def keep_alerts(self, alerts: Sequence[Alert]) -> None:
        """Add to the feed; one that is known changes nothing."""
        ...

    async def alerts(self, *, limit: int, before_n: int | None = None) -> list[NotedAlert]:
        """The feed, newest first."""
        ...

    async def forget(self, *, before: datetime) -> None:
        """Remove notices and alerts from before."""
        ...


Transaction = Callable[[], AbstractAsyncContextManager[Notes]]
