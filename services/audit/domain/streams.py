"""Whether a producer's stream of access records is whole: dense numbers, each naming the one before by its hash.

A resolver numbers its records from 0 in each run and puts the SHA-256 of the previous payload into the next one. So a
record that was kept from the topic, exchanged or inserted shows at the next one that arrives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from services.audit.domain.entries import Cause, Entry
from shared import topics
from shared.events.access import FIRST_PREV, AccessRecord
from shared.events.audit import AuditAction


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a stream that was seen: its number and the hash of its payload."""

    n: int
    hash: str


BEFORE_FIRST = Head(-1, FIRST_PREV)


@dataclass(frozen=True, slots=True)
class Continues:
    """The next one, as it should be."""

    head: Head


@dataclass(frozen=True, slots=True)
class Repeated:
    """Seen before: delivered again."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Something is missing or was changed before this record; the stream goes on from it."""

    head: Head
    reason: str
    detail: str


Finding = Continues | Repeated | Broken


def payload_hash(payload: bytes) -> str:
    """What the next record of the stream must name."""
    return hashlib.sha256(payload).hexdigest()


def follow(head: Head, record: AccessRecord, payload: bytes) -> Finding:
    """Judge the next record of a stream whose newest one is `head`."""
    if record.n <= head.n:
        return Repeated()
    after = Head(record.n, payload_hash(payload))
    if record.n != head.n + 1:
        return Broken(after, "stream-gap", f"records {head.n + 1} to {record.n - 1} of {record.stream} are missing")
    if record.prev != head.hash:
        return Broken(after, "stream-broken", f"record {record.n} of {record.stream} names another one before it")
    return Continues(after)


def broken_entry(record: AccessRecord, broken: Broken, *, at: datetime) -> Entry:
    """The alarm about a stream, for the log itself."""
    key = f"{record.stream}/{record.n}/{broken.reason}"
    return Entry(
        cause=Cause(topic=topics.ACCESS, key=key, id=record.id, stream=record.stream, n=record.n),
        at=at,
        action=AuditAction.ALERT_RAISED,
        decision="critical",
        reason=broken.reason,
        entity_id=record.stream,
        detail=broken.detail,
    )
