"""What happened to a key of a topic of state, as a projection tells it to its service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shared.projection.records import TypedRecord


class Why(StrEnum):
    """Why a key holds nothing any more."""

    DELETED = "deleted"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Upserted:
    """The key holds this record now."""

    record: TypedRecord


@dataclass(frozen=True, slots=True)
class Removed:
    """The key holds nothing now. `kind` is the CloudEvents type of what it held, None when it held nothing known.

    `payload` is what could not be read, when that is why: a digest over all records counts it nevertheless.
    """

    key: str
    kind: str | None
    why: Why
    payload: bytes | None = None


Change = Upserted | Removed


@dataclass(frozen=True, slots=True)
class Alert:
    """A record that denied something because it could not be read. Safe to show; `key` is an id without meaning."""

    topic: str
    key: str | None
    offset: int
    reason: str
