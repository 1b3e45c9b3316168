"""The port to secret managers: one value, by its place, now.

Each error tells what to do: `ValueMissing` and `ReadDenied` will not mend by asking again, `SourceUnreachable` and
`SourceSealed` may. None of them carries a value, a path or a remote system's words. Callers see all of them as
`SourceUnavailable`; the record keeps `reason`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from services.resolver.domain.facts import Reference, Source
from shared.crypto.secret import SecretBytes
from shared.errors import SourceUnavailable


class ReadFailed(SourceUnavailable):
    """No value came. The root of what a reader raises."""

    reason: ClassVar[str] = "source-failed"
    words: ClassVar[str] = ""
    """What the caller is told; empty: only that no value came."""


class ValueMissing(ReadFailed):
    """The source answered that there is nothing (any more): deleted, destroyed, another path or key."""

    reason = "source-missing"


class ReadDenied(ReadFailed):
    """The source refused our credential, or we have none for its origin."""

    reason = "source-denied"


class SourceUnreachable(ReadFailed):
    """No answer in time, no connection, or the source's own failure."""

    reason = "source-unreachable"


class SourceSealed(ReadFailed):
    """The source is up but locked: an operator has to unseal it."""

    reason = "source-sealed"


class AnswerUnusable(ReadFailed):
    """The source answered with something that is no secret of the promised form."""

    reason = "source-answer-unusable"


@dataclass(frozen=True, slots=True)
class ReadValue:
    """A value with the provider's own version. Whoever holds it wipes it."""

    secret: SecretBytes
    version: str


class ValueReader(Protocol):
    """One provider."""

    async def read(self, source: Source, reference: Reference, *, version: str | None = None) -> ReadValue:
        """The value as it is now, or exactly `version`.

        Never from a cache. Raises a `ReadFailed`, within the reader's own bound in seconds.
        """
        ...
