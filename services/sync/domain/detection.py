"""Detect, then act: what an observation of one path means for the references that point there.

`detect` compares what is known with what was seen and returns findings; `commits.apply` turns a finding into what
a commit says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.sync.domain.observations import Denied, Found, Missing
from shared.events.catalog import ReferenceRecord, ReferenceState

GONE = frozenset({ReferenceState.REMOVED, ReferenceState.RENAMED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One reference as the last commit left it, with what the record does not say."""

    record: ReferenceRecord
    born_at: datetime
    """Of the entry in the source when it was last seen."""
    set_by_admin: frozenset[str] = frozenset()
    """Which of `owner` and `description` a person wrote: the source's own words no longer change them."""

    @property
    def order(self) -> tuple[datetime, int]:
        """Compares with `Found.order`."""
        return self.born_at, int(self.record.version)


@dataclass(frozen=True, slots=True)
class Discovered:
    """A path, or a key of it, that no reference points to yet."""

    found: Found
    key: str | None


@dataclass(frozen=True, slots=True)
class Rotated:
    """Another version is current, and it can be read."""

    known: Known
    found: Found


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The reference is in another state now. `found` is None when the source no longer shows it."""

    known: Known
    state: ReferenceState
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class Redescribed:
    """Only words about it changed: nobody needs to act."""

    known: Known
    found: Found


@dataclass(frozen=True, slots=True)
class Renamed:
    """The reference is gone, and this one very likely goes on where it ended."""

    known: Known
    successor: ReferenceRecord


Finding = Discovered | Rotated | StateChanged | Renamed | Redescribed


def detect(
    known: Iterable[Known], seen: Found | Missing | Denied, *, accept_older: bool = False
) -> tuple[Finding, ...]:
    """What `seen` means for the references at its path; nothing when it tells nothing new.

    Nor when it is older than what is known, as from a standby that lags: a version never goes back by itself. With
    `accept_older`, for a source that was restored from a backup, it does.
    """
    references = tuple(known)
    match seen:
        case Missing():
            return _all_become(references, ReferenceState.REMOVED)
        case Denied():
            return _all_become(references, ReferenceState.UNREADABLE)
        case Found():
            # All or nothing for the path: its references are of one version, and half of them must not go back.
            if is_older(references, seen) and not accept_older:
                return ()
            findings = (_of_one(one, seen) for one in references)
            return (*(one for one in findings if one is not None), *_discovered(references, seen))


def is_older(known: Iterable[Known], seen: Found) -> bool:
    """Whether `seen` shows the path as it was before what is known."""
    return any(seen.order < one.order for one in known)


def _all_become(references: tuple[Known, ...], state: ReferenceState) -> tuple[Finding, ...]:
    # What is gone stays gone, whatever it is called, until the source shows it again.
    return tuple(
        StateChanged(one, state) for one in references if one.record.state not in GONE and one.record.state is not state
    )


def _of_one(known: Known, seen: Found) -> Finding | None:
    record = known.record
    state = _state_of(record, seen)
    newer = record.version != str(seen.version)
    # Removed, renamed: whichever was said first stays, or each sweep would announce it anew.
    if record.state in GONE and state in GONE:
        return None
    if seen.born_at != known.born_at and not newer and record.state not in GONE:
        # Deleted and made again between two looks: what was read under this version is not what it names now.
        # First it is gone; the next look finds it again.
        return StateChanged(known, ReferenceState.REMOVED)
    # A new version that can't be read is no rotation: nobody could take it up.
    if newer and state is ReferenceState.ACTIVE:
        return Rotated(known, seen)
    if newer or state is not record.state:
        return StateChanged(known, state, seen)
    if described_by(known, seen) != (record.owner, record.description):
        return Redescribed(known, seen)
    return None


def _state_of(record: ReferenceRecord, seen: Found) -> ReferenceState:
    """The state of `record` now. Keys that can't be seen are not keys that are gone."""
    if record.state in GONE:
        return ReferenceState.ACTIVE if _comes_back(record, seen) else record.state
    if seen.state is not ReferenceState.ACTIVE:
        return seen.state
    # Only what the source shows decides: a key is lost when the names can be seen and it is not among them.
    lost = record.key is not None and seen.keys is not None and record.key not in seen.keys
    return ReferenceState.REMOVED if lost else ReferenceState.ACTIVE


def _comes_back(record: ReferenceRecord, seen: Found) -> bool:
    if seen.state is not ReferenceState.ACTIVE:
        return False
    # One for the whole secret gives way for good once its keys can be seen: they have references of their own.
    return record.key is None if seen.keys is None else record.key in seen.keys


def _discovered(references: tuple[Known, ...], seen: Found) -> tuple[Discovered, ...]:
    if seen.state is not ReferenceState.ACTIVE:
        return ()
    if seen.keys is None:
        stands = any(one.record.key is None or one.record.state not in GONE for one in references)
        return () if stands else (Discovered(seen, None),)
    # Gone ones too: a name that comes back is the old reference again, with its grants.
    have = {one.record.key for one in references}
    return tuple(Discovered(seen, key) for key in seen.keys if key not in have)


def described_by(known: Known, seen: Found) -> tuple[str, str]:
    """(owner, description): a person's words, or else the source's own."""
    owner = known.record.owner if "owner" in known.set_by_admin else seen.owner
    description = known.record.description if "description" in known.set_by_admin else seen.description
    return owner, description
