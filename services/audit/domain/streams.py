"""Whether a producer's stream of access records is whole: dense numbers, each naming the one before by its hash.

A resolver numbers its records from 0 in each run and puts the SHA-256 of the previous payload into the next one. So a
record that was kept from the topic, exchanged or inserted shows at the next one that arrives. All records of a stream
stand in one partition, so one that is missing when the next is read is missed at once; if it comes after all, it is
kept and said to be late.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.audit.domain.entries import Cause, Entry
from shared import topics
from shared.events.access import FIRST_PREV, AccessRecord
from shared.events.audit import AuditAction

GAP: Final = "stream-gap"
BROKEN: Final = "stream-broken"
LATE: Final = "stream-late"
FORK: Final = "stream-fork"


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a stream that was seen: its number and the hash of its payload."""

    n: int
    hash: str


# So that the first record is judged by the same rule as all others.
BEFORE_FIRST = Head(-1, FIRST_PREV)


@dataclass(frozen=True, slots=True)
class Continues:
    """The next one, as it should be."""

    head: Head


@dataclass(frozen=True, slots=True)
class Repeated:
    """Recorded before: delivered again."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something is missing, was changed, or came late; the stream goes on from `head`."""

    head: Head
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Forked:
    """Its number is on record with another content: the record on record stays, this one is only reported."""

    detail: str


Finding = Continues | Repeated | Broken | Forked


def payload_hash(payload: bytes) -> str:
    """What the next record of the stream must name."""
    return hashlib.sha256(payload).hexdigest()


def follow(head: Head, record: AccessRecord, *, digest: str, recorded: str | None) -> Finding:
    """Judge the next record of a stream whose newest one is `head`.

    `digest` is its payload's hash, `recorded` that of the record of this number which is on record, None when none is.
    """
    name = f"record {record.n} of {record.stream}"
    # First of all: what is on record decides, however far the stream has come.
    if recorded is not None:
        return Repeated() if recorded in ("", digest) else Forked(f"{name} came twice, with different content")
    if record.n <= head.n:
        # The head stays: those behind it were judged by it.
        return Broken(head, LATE, f"{name} came after record {head.n}")
    after = Head(record.n, digest)
    # Before the hash: behind a gap nobody knows what it should name.
    if record.n != head.n + 1:
        return Broken(after, GAP, f"records {head.n + 1} to {record.n - 1} of {record.stream} are missing")
    if record.prev != head.hash:
        return Broken(after, BROKEN, f"{name} names another one before it")
    return Continues(after)


def broken_entry(record: AccessRecord, *, reason: str, detail: str, at: datetime) -> Entry:
    """The alarm about a stream, for the log itself."""
    key = f"{record.stream}/{record.n}/{reason}"
    return Entry(
        cause=Cause(topic=topics.ACCESS, key=key, id=record.id, stream=record.stream, n=record.n),
        at=at,
        action=AuditAction.ALERT_RAISED,
        decision="critical",
        reason=reason,
        entity_id=record.stream,
        detail=detail,
    )
