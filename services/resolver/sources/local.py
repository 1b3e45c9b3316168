"""The port to values that Keyfob keeps itself: one value, by whose and what for, now.

They are read from the database at every resolve, and opened only for the owner, server and field of the question.
"""

from __future__ import annotations

from typing import Protocol

from services.resolver.domain.local_values import Slot
from services.resolver.sources.port import ReadFailed, ReadValue


class LocalValueMissing(ReadFailed):
    """Nobody entered one yet, or it was deleted."""

    reason = "local-value-missing"
    words = "No value was entered for this field yet: its owner does so with `keyfob value set`."


class LocalValueAway(ReadFailed):
    """This replica has no database or no key for it now, or keeps none at all."""

    reason = "local-value-unavailable"
    words = "Local values can't be had now."


class LocalValueDamaged(ReadFailed):
    """It does not open here: its row was changed, or put in the place of another."""

    reason = "local-value-damaged"
    words = "The value that was entered does not open any more: enter it again."


class LocalReader(Protocol):
    """Values that Keyfob keeps."""

    async def read(self, slot: Slot) -> ReadValue:
        """The value as it is now, with its version. Raises one of the above, within the reader's own bound."""
        ...

    def used(self, slot: Slot, version: str) -> None:
        """This version of it was released now; does not wait."""
        ...


class NothingKept:
    """`LocalReader` of an installation without keys."""

    async def read(self, slot: Slot) -> ReadValue:  # noqa: ARG002 - there is none, whoever asks
        """See the port."""
        raise LocalValueAway

    def used(self, slot: Slot, version: str) -> None:
        """See the port."""
