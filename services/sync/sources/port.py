"""The port to a place that holds secrets. No method of it needs a right to read values, and none may use one.

Three things that look alike are kept apart everywhere: *missing* (the source says it is not there), *denied* (the
source says that we may not look) and *unreached* (no answer that says anything: down, sealed, throttled, our
credential refused as a whole, the mount not there). Only the first ever makes a reference removed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from services.sync.domain.observations import Found, Observation, Unreached
from shared.events.catalog import KvSource


@dataclass(frozen=True, slots=True)
class Listed:
    """A path that the source lists; with what the listing said of it, where it says that much, but for keys."""

    path: str
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class FolderDenied:
    """A folder whose list we may not see. What is known below it is to be looked at path by path."""

    folder: str


Entry = Listed | FolderDenied | Unreached


@dataclass(frozen=True, slots=True)
class Reached:
    """The source answers us."""


@dataclass(frozen=True, slots=True)
class Unsuitable:
    """The source answers, and is not what it is said to be; `why` is safe to show."""

    why: str


class SourceReader(Protocol):
    """Reads one source. Methods return outcomes and raise only for mistakes of ours; remote text is cut."""

    def entries(self) -> AsyncIterator[Entry]:
        """List all paths, page by page, in no particular order.

        After `Unreached` nothing more comes, and nothing may be concluded from what did not come. A path may be
        listed that is gone when it is read, and the reverse: `read` decides.
        """
        ...

    async def read(self, path: str, *, keys: bool) -> Observation:
        """The state of one path; with `keys` also the names inside it, where they can be seen.

        `Missing`: act on it. `Denied`: this path is closed to us while the source as a whole is not. `Unread`: nothing
        can be said of this path, while the source answers. `Unreached`: change nothing and ask again later.
        """
        ...

    async def check(self) -> Reached | Unsuitable | Unreached:
        """Whether the source can be worked with at all. `Unsuitable` won't mend itself."""
        ...


ReaderFactory = Callable[[str, KvSource], SourceReader]
"""Makes the reader for a source by its name and place; one for each provider, in a map in `app`."""
