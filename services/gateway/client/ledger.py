"""What an instance knows of notices, leases and resolves in flight, and so how far it may say it has come. Pure.

A receipt is cumulative. `applied_offset` is the last notice that was applied. `dropped_offset` follows it, but never
passes a notice while a lease that it ended is still held, nor while a resolve is out that was out when the notice
came: its answer may carry the old value.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.gateway.client.leases import Fenced, Floor, Lease, LeaseBook, Moment, rests_on_what_ended
from shared.events.notices import Notice
from shared.events.receipts import EndedLease, Finding, FindingKind, LeaseEnd

NOTHING_READ = -1


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer's leases are held now."""


@dataclass(frozen=True, slots=True)
class Crossed:
    """A notice that ends what the answer carries came while the call was out: discard it and ask again."""

    floor: Floor


Settlement = Accepted | Crossed


@dataclass(frozen=True, slots=True)
class Progress:
    """What the next receipt says."""

    applied_offset: int
    dropped_offset: int
    open_leases: int


@dataclass(eq=False, slots=True)
class Out:
    """One resolve that is out, what it asked to be decided on at least, and what came meanwhile."""

    floor: Floor
    crossed: list[Notice] = field(default_factory=list)
    first_offset: int | None = None
    spoilt: bool = False


@dataclass(slots=True)
class Ledger:
    """One instance's state. The caller applies everything in the order of the topic."""

    book: LeaseBook = field(default_factory=LeaseBook)
    floor: Floor = field(default_factory=Floor)
    applied_offset: int = NOTHING_READ
    _out: set[Out] = field(default_factory=set)
    _ended: list[EndedLease] = field(default_factory=list)
    _released: list[str] = field(default_factory=list)
    _findings: list[Finding] = field(default_factory=list)
    _seen: Counter[tuple[FindingKind, str]] = field(default_factory=Counter)
    """Places by kind and lease that no receipt was made about yet."""

    def start_at(self, position: int) -> None:
        """Everything before `position` came before the first resolve, which will be decided after it."""
        self.applied_offset = position - 1

    def apply(self, offset: int, notice: Notice) -> tuple[Fenced, ...]:
        """Fence what a notice ends, and remember it for the resolves that are out."""
        self.floor = self.floor.raised_by(notice)
        for out in self._out:
            out.crossed.append(notice)
            out.first_offset = offset if out.first_offset is None else out.first_offset
        fenced = self.book.fence(offset, notice)
        self.pass_over(offset)
        return fenced

    def pass_over(self, offset: int) -> None:
        """A message at `offset` that ends nothing."""
        # Batches end with their own position, which the last message may have passed already.
        self.applied_offset = max(self.applied_offset, offset)

    def lose(self, offset: int) -> tuple[Fenced, ...]:
        """Something at or before `offset` was missed: it may have meant any lease, and any answer that is out."""
        for out in self._out:
            out.spoilt = True
            # The smaller one: in a topic that was made anew, what came before has offsets that are still to come.
            out.first_offset = offset if out.first_offset is None else min(out.first_offset, offset)
        # Not the larger one: a topic that was made anew begins at 0.
        self.applied_offset = offset
        return self.book.fence_all(offset)

    def ask(self) -> Out:
        """A resolve goes out. It must be settled or given up."""
        out = Out(self.floor)
        self._out.add(out)
        return out

    def settle(self, out: Out, leases: Iterable[Lease]) -> Settlement:
        """An answer came: hold its leases, unless a notice ends one of them that the decision did not know.

        A decision below the floor of the question is of the same kind: the resolver lags behind what we know.
        """
        self._out.discard(out)
        brought = tuple(leases)
        # Without any notice in between: the resolver that answered may be another one than last time.
        lags = any(not lease.decided.reaches(out.floor) for lease in brought)
        if out.spoilt or lags or any(rests_on_what_ended(lease, notice) for notice in out.crossed for lease in brought):
            return Crossed(self.floor)
        self.book.add(brought)
        return Accepted()

    def give_up(self, out: Out) -> None:
        """No answer will be used."""
        self._out.discard(out)

    def end(self, lease_ids: Iterable[str], why: LeaseEnd, moment: Moment) -> None:
        """The process or connection that held these values is gone; repeating it changes nothing."""
        at = datetime.fromtimestamp(moment.wall, UTC)
        gone = [lease for lease in map(self.book.end, lease_ids) if lease is not None]
        self._ended.extend(EndedLease(lease_id=lease.id, why=why, at=at) for lease in gone)

    def echo(self, released: str) -> None:
        """Repeat an authorisation record's `stream/n/hash` in the next receipt."""
        self._released.append(released)

    def found(self, kind: FindingKind, places: Mapping[str, int]) -> None:
        """So many places by lease id; one finding for each lease until the next receipt, however many there are."""
        for lease_id, count in places.items():
            self._seen[kind, lease_id] += count

    def findings(self, at: datetime) -> tuple[Finding, ...]:
        """What no durable receipt has told yet; the same again, under the same ids, until one is."""
        self._findings.extend(
            Finding(id=f"finding/{secrets.token_hex(16)}", kind=kind, lease_id=lease_id, places=places, at=at)
            for (kind, lease_id), places in self._seen.items()
        )
        # What comes from now on is another finding: this one may stand in a durable receipt already.
        self._seen.clear()
        return tuple(self._findings)

    def progress(self) -> Progress:
        """How far this instance has come."""
        holding = self.book.held_at()
        asking = min((out.first_offset for out in self._out if out.first_offset is not None), default=None)
        blocks = [offset for offset in (holding, asking) if offset is not None]
        # Cumulative, so it stops before the first thing that is open, whatever later ones are done.
        # Nor beyond what is applied: a lease may still wait for an offset of a topic that was made anew since.
        dropped = min([self.applied_offset, *(offset - 1 for offset in blocks)])
        return Progress(self.applied_offset, dropped, len(self.book))

    def unreported(self) -> tuple[tuple[EndedLease, ...], tuple[str, ...]]:
        """What no durable receipt has told yet: ended leases and echoes."""
        return tuple(self._ended), tuple(self._released)

    def reported(self, ended: int, released: int, findings: int = 0) -> None:
        """The first so many of each stand in a durable receipt."""
        del self._findings[:findings]
        del self._ended[:ended]
        del self._released[:released]
