"""What a look at one path of a source can show. Missing, denied, unread and unreached are different things."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.events.catalog import ReferenceState


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The source knows the path. Times are by the provider's clock.

    `version` counts up within one life of the entry, which began at `born_at`: an entry that was deleted with all
    its history and made again starts over at 1, and only `born_at` tells that from an old answer.
    """

    path: str
    version: int
    born_at: datetime
    created_at: datetime
    """When this version came to be."""
    state: ReferenceState
    """ACTIVE, PENDING_DELETION (recoverable) or REMOVED (destroyed, or no version at all)."""
    since: datetime
    """When that state began, as far as the provider says."""
    keys: tuple[str, ...] | None = None
    """The names inside the secret; None where they can't be seen."""
    owner: str = ""
    description: str = ""

    @property
    def order(self) -> tuple[datetime, int]:
        """A later observation of the same path never has a smaller one."""
        return self.born_at, self.version


@dataclass(frozen=True, slots=True)
class Missing:
    """The source answered, and there is nothing by that path."""

    path: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The source answered that we may not look at this path."""

    path: str


@dataclass(frozen=True, slots=True)
class Unreached:
    """The source gave no answer that says anything about the path; `why` is safe to show."""

    why: str


@dataclass(frozen=True, slots=True)
class Unread:
    """The source answers, but nothing that it says of this path can be used; `why` is safe to show."""

    path: str
    why: str


Observation = Found | Missing | Denied | Unread | Unreached
