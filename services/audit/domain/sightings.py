"""Whether an instance's assertion was shown twice: once to each of two replicas, or to one that refused it then.

An assertion is good for one request, and every replica remembers those that it saw. What two replicas see only the log
can tell: each record of a request names its assertion, and the second sight of one is an alarm. Whoever repeats a
request gains nothing, since only the instance can open the answer; but somebody was able to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.audit.domain.entries import Cause, Entry, access_key
from shared import topics
from shared.events.access import AccessRecord, Phase
from shared.events.audit import AuditAction

SEEN_TWICE: Final = "assertion-seen-twice"

KEPT: Final = timedelta(minutes=10)
"""An assertion is good for 70 s, clocks included; the rest is for a partition that is read later than another."""

_FIRST_OF_A_REQUEST: Final = frozenset({Phase.AUTHORISED, Phase.REFUSED})


@dataclass(frozen=True, slots=True)
class Sighting:
    """One request that came with the assertion of this digest; `resolution_id` is the request's."""

    assertion: str
    resolution_id: str


def sighting_of(record: AccessRecord) -> Sighting | None:
    """What a record tells of an assertion; None for an outcome, which its request told already."""
    if not record.assertion or record.phase not in _FIRST_OF_A_REQUEST:
        return None
    return Sighting(record.assertion, record.resolution_id)


def repetitions(records: Iterable[AccessRecord], seen: Mapping[str, str]) -> list[AccessRecord]:
    """The records of requests whose assertion another request had come with; `seen` is the first one, by digest.

    Moves `seen` on, so that a second sight shows within one batch too. The same record read again is no second sight.
    """
    first = dict(seen)
    found = []
    for record in records:
        sighting = sighting_of(record)
        if sighting is None:
            continue
        if first.setdefault(sighting.assertion, sighting.resolution_id) != sighting.resolution_id:
            found.append(record)
    return found


def twice_entry(record: AccessRecord, *, at: datetime) -> Entry:
    """The alarm about the request that `record` tells of."""
    key = f"{access_key(record.stream, record.n)}/{SEEN_TWICE}"
    return Entry(
        cause=Cause(topic=topics.ACCESS, key=key, id=record.id, stream=record.stream, n=record.n),
        at=at,
        action=AuditAction.ALERT_RAISED,
        decision="critical",
        reason=SEEN_TWICE,
        instance_id=record.instance_id or "",
        instance_name=record.instance_name,
        entity_id=record.instance_id or record.stream,
        detail=f"the request of record {record.n} of {record.stream} came with an assertion that was used before",
        trace_id=record.trace_id,
    )
