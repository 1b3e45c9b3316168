"""Access records for tests, numbered and chained as a resolver does it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.events.access import FIRST_PREV, AccessItem, AccessRecord, AccessSubject, Phase

AT = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
STREAM = "access/resolver-1/7d"


def item(**more: Any) -> AccessItem:
    fields: dict[str, Any] = {
        "field": "DB_URL",
        "reference_id": "reference/1",
        "reference_name": "hospital-a/db-url",
        "source_id": "source/1",
        "lease_id": "lease/1",
        "expires_at": AT + timedelta(minutes=15),
        "rests_on": ("reference/1",),
    }
    return AccessItem.model_validate(fields | more)


def access(phase: Phase = Phase.AUTHORISED, *, n: int = 0, prev: str = FIRST_PREV, **more: Any) -> AccessRecord:
    fields: dict[str, Any] = {
        "id": f"{STREAM}/{n}",
        "stream": STREAM,
        "n": n,
        "prev": prev,
        "phase": phase,
        "at": AT,
        "resolution_id": "resolution/1",
        "instance_id": "instance/1",
        "instance_name": "gateway-1",
        "subject": AccessSubject(idp_id="idp/1", subject="agent-a", groups=("nurses-a", "night-shift")),
        "server_id": "server/1",
        "server_name": "patients-db",
        "profile_id": "profile/1",
        "context": "hospital-a",
        "items": (item(),) if phase is not Phase.REFUSED else (),
        "policy_seq": 9,
        "catalog_seq": 2,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return AccessRecord.model_validate(fields | more)


def digest(record: AccessRecord) -> str:
    return hashlib.sha256(record.to_json()).hexdigest()


def chain(length: int) -> list[AccessRecord]:
    """A whole stream."""
    records: list[AccessRecord] = []
    for n in range(length):
        prev = digest(records[-1]) if records else FIRST_PREV
        records.append(access(n=n, prev=prev, resolution_id=f"resolution/{n}"))
    return records
