"""What the audit service needs from outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.audit.domain.echoes import Echo
from services.audit.domain.entries import Entry
from services.audit.domain.leases import LeaseFact, Opened
from services.audit.domain.sightings import Sighting
from services.audit.domain.streams import Head
from shared.delivery.receipts import Voucher
from shared.events.audit import AuditRecord

LOG = "log/main"
"""The one log of this installation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Which records are asked for; None is no limit. Oldest first, those with a number above `after`."""

    reference: str | None = None
    subject: str | None = None
    instance: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseQuery:
    """Which leases are asked for.

    `given_by`: only those whose value was given by then for certain, or must be presumed to have been. `open_at`: only
    those that somebody may hold at that time. `since`, `until`: when they were opened.
    """

    reference: str | None = None
    instance: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    given_by: datetime | None = None
    open_at: datetime | None = None
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One lease, and how it ended if it has."""

    opened: Opened
    ended_at: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class Signer:
    """An enrolled instance, as policy signed it."""

    name: str
    voucher: Voucher
    """For its receipts."""


class Journal(Protocol):
    """The log and what follows from it, inside one transaction: all of it becomes durable together, or nothing."""

    async def write(self, entries: Sequence[Entry]) -> int:
        """Number and record those whose cause is not on record yet; how many those were."""
        ...

    async def heads(self, streams: Collection[str]) -> Mapping[str, Head]:
        """The newest record seen of each of these streams, locked until the transaction ends."""
        ...

    async def keep_heads(self, heads: Mapping[str, Head]) -> None:
        """Remember how far streams were seen."""
        ...

    async def apply(self, facts: Iterable[LeaseFact]) -> None:
        """Open and end leases. In any order and any number of times the result is the same."""
        ...

    async def hashes(self, keys: Collection[str]) -> Mapping[str, str]:
        """Of those access records that are on record, by key: the hash of the payload."""
        ...

    async def opened(self, lease_ids: Collection[str]) -> Mapping[str, Opened]:
        """Of those leases that are on record, by id."""
        ...

    async def await_records(self, echoes: Sequence[Echo], *, since: datetime) -> None:
        """Remember that instances were told of records that are not here, or not yet."""
        ...

    async def awaited(self, *, before: datetime, limit: int) -> list[Echo]:
        """The echoes that were remembered before then, the oldest first."""
        ...

    async def forget_echoes(self, echoes: Sequence[Echo]) -> None:
        """They were settled, one way or the other."""
        ...

    async def sight(self, sightings: Sequence[Sighting], *, at: datetime) -> Mapping[str, str]:
        """Remember which assertions requests came with; the first request of each, by digest.

        After `write`, in the same transaction: so two replicas that read two sights at once can't both miss them.
        Those remembered longer than `sightings.KEPT` before `at` are forgotten.
        """
        ...

    async def records(self, query: RecordQuery) -> list[AuditRecord]:
        """The records that were asked for."""
        ...

    async def leases(self, query: LeaseQuery) -> list[LeaseView]:
        """The leases that were asked for."""
        ...


class Instances(Protocol):
    """Who may sign receipts."""

    def signer_of(self, instance_id: str) -> Signer | None:
        """The instance that may sign under this id, if policy really enrolled it."""
        ...

    async def caught_up(self) -> None:
        """Return once everything that policy had said at the call is known; `Unavailable` when that can't be."""
        ...


class AccessProgress(Protocol):
    """How far all replicas together have recorded `access`."""

    async def ends(self) -> Mapping[int, int]:
        """The offset behind the newest message of each partition; `Unavailable` when it can't be asked."""
        ...

    async def reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before these offsets was recorded; `Unavailable` when it can't be asked."""
        ...


Transaction = Callable[[], AbstractAsyncContextManager[Journal]]
Clock = Callable[[], datetime]
