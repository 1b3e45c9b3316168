"""The leases that an instance holds, and which of them a notice ends. Pure: no clock, no network, no waiting.

A lease is `usable` until something ends it, then `fenced` (no new use, though the process or connection that got the
value may still be there), and gone once whoever holds the value says so. An id that was fenced or is gone never
becomes usable again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from shared.events.notices import Notice, NoticeKind
from shared.events.receipts import LeaseEnd


@dataclass(frozen=True, slots=True)
class Floor:
    """The commit sequences of policy and catalog up to which something is known; 0 before anything is."""

    policy: int = 0
    catalog: int = 0

    def raised_by(self, notice: Notice) -> Floor:
        """The floor of somebody who has also seen `notice`."""
        return Floor(max(self.policy, notice.policy_seq or 0), max(self.catalog, notice.catalog_seq or 0))

    def reaches(self, other: Floor) -> bool:
        """Whether this knows at least as much of both."""
        return self.policy >= other.policy and self.catalog >= other.catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One value that this instance may hold.

    `expires_at` is in seconds since 1970, `expires_at_monotonic` the same moment on this process's own clock: a wall
    clock that is set back does not lengthen a lease, and a suspended machine does not either.
    """

    id: str
    reference_id: str
    version: str
    rests_on: frozenset[str]
    decided: Floor
    expires_at: float
    expires_at_monotonic: float

    def expired(self, moment: Moment) -> bool:
        """Whether it is over by either clock."""
        return moment.wall >= self.expires_at or moment.monotonic >= self.expires_at_monotonic


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks, in seconds."""

    monotonic: float
    wall: float


class Urgency(Enum):
    """How a fenced value goes: running calls may finish within the drain time, or it is stopped at once."""

    DRAIN = auto()
    KILL = auto()


@dataclass(frozen=True, slots=True)
class Fenced:
    """This lease may not be used any more, and why."""

    lease: Lease
    urgency: Urgency
    why: LeaseEnd
    within_s: float = 0.0
    """When running calls may finish: seconds until even they may not use it, from when others count on that."""


def rests_on_what_ended(lease: Lease, notice: Notice) -> bool:
    """Whether `notice` ends `lease`.

    1. A lease that was decided at or after the notice's commit already knew.
    2. It rests on a record that ended, or
    3. its reference has another version now.
    """
    # 1. A notice that names no commit can't have been known: it ends what it matches.
    names_a_commit = notice.policy_seq is not None or notice.catalog_seq is not None
    if names_a_commit and lease.decided.reaches(Floor().raised_by(notice)):
        return False
    # 2.
    if not lease.rests_on.isdisjoint(notice.ended) or lease.reference_id in notice.ended:
        return True
    # 3.
    return any(old.reference_id == lease.reference_id and old.current != lease.version for old in notice.superseded)


def urgency_of(notice: Notice) -> Urgency:
    """A rotation lets running calls finish; whatever else ends a lease ends it at once."""
    return Urgency.DRAIN if notice.kind is NoticeKind.ROTATION and not notice.ended else Urgency.KILL


@dataclass(slots=True)
class _Fence:
    urgency: Urgency
    offset: int | None
    """The notice that did it; None where no notice waits for this lease (expiry, the tick fence)."""


@dataclass(slots=True)
class LeaseBook:
    """All leases of one instance. Ends are looked up by what they name, not by trying every lease."""

    _held: dict[str, Lease] = field(default_factory=dict)
    _fenced: dict[str, _Fence] = field(default_factory=dict)
    _resting: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def __len__(self) -> int:
        """How many leases are held, fenced ones included."""
        return len(self._held)

    def add(self, leases: Iterable[Lease]) -> None:
        """Hold these too. Ids are unique for ever: one that is held already is a mistake of the resolver."""
        brought = tuple(leases)
        by_id = {lease.id: lease for lease in brought}
        # All or nothing: what was added of an answer that is refused nobody would ever let go of.
        if len(by_id) < len(brought) or not by_id.keys().isdisjoint(self._held):
            message = "a lease id was used twice"
            raise ValueError(message)
        self._held.update(by_id)
        for lease in brought:
            for name in self._names(lease):
                self._resting[name].add(lease.id)

    def usable(self, lease_id: str, moment: Moment) -> bool:
        """Whether the value may be used now."""
        lease = self._held.get(lease_id)
        return lease is not None and lease_id not in self._fenced and not lease.expired(moment)

    def fence(self, offset: int, notice: Notice) -> tuple[Fenced, ...]:
        """Fence what `notice` at `offset` ends; a later, more urgent notice names what an earlier one let drain."""
        urgency = urgency_of(notice)
        touched = sorted(self._candidates(notice))
        return tuple(
            Fenced(lease, urgency, LeaseEnd.NOTICE)
            for lease in (self._held[lease_id] for lease_id in touched)
            if rests_on_what_ended(lease, notice) and self._fence(lease, urgency, offset)
        )

    def fence_expired(self, moment: Moment) -> tuple[Fenced, ...]:
        """Fence what is over by its own time."""
        over = [lease for lease in self._held.values() if lease.expired(moment)]
        return self._fence_at_once(over, None, LeaseEnd.EXPIRED)

    def fence_all(self, offset: int | None = None) -> tuple[Fenced, ...]:
        """Fence everything, at once; `offset` where something in the topic is the reason."""
        return self._fence_at_once(self._held.values(), offset, LeaseEnd.FENCED)

    def end(self, lease_id: str) -> Lease | None:
        """The holder has let go of the value: forget the lease. None if it was forgotten before."""
        lease = self._held.pop(lease_id, None)
        self._fenced.pop(lease_id, None)
        if lease is None:
            return None
        for name in self._names(lease):
            self._resting[name].discard(lease_id)
            if not self._resting[name]:
                del self._resting[name]
        return lease

    def held_at(self) -> int | None:
        """The lowest offset of a notice whose leases are not all gone yet; None when there is none."""
        return min((fence.offset for fence in self._fenced.values() if fence.offset is not None), default=None)

    def _fence_at_once(self, leases: Iterable[Lease], offset: int | None, why: LeaseEnd) -> tuple[Fenced, ...]:
        news = [lease for lease in leases if self._fence(lease, Urgency.KILL, offset)]
        return tuple(Fenced(lease, Urgency.KILL, why) for lease in news)

    def _fence(self, lease: Lease, urgency: Urgency, offset: int | None) -> bool:
        """Whether this is news for the holder: fenced for the first time, or more urgent than before."""
        fence = self._fenced.get(lease.id)
        if fence is None:
            self._fenced[lease.id] = _Fence(urgency, offset)
            return True
        # It expired first, and then a notice named it: from now on that notice waits for it too. The smaller one: in a
        # topic that was made anew, an offset of before is still to come.
        fence.offset = min((one for one in (fence.offset, offset) if one is not None), default=None)
        if fence.urgency is Urgency.DRAIN and urgency is Urgency.KILL:
            fence.urgency = Urgency.KILL
            return True
        return False

    def _candidates(self, notice: Notice) -> set[str]:
        # By index: a notice on a thousand leases costs what it ends, not a look at each.
        names = (*notice.ended, *(old.reference_id for old in notice.superseded))
        return set().union(*(self._resting.get(name, ()) for name in names))

    @staticmethod
    def _names(lease: Lease) -> frozenset[str]:
        return lease.rests_on | {lease.reference_id}
