"""What access records and receipts say about who holds a value.

An authorisation opens a lease: its outcome may never arrive, and then delivery is presumed. A release confirms it with
the version, an abandonment withdraws it, a receipt or its expiry ends it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.events.access import AccessRecord, Phase

# Longer than a resolver takes to read, seal and record: an outcome that exists has arrived by then.
PRESUMED_AFTER = timedelta(seconds=10)
"""An authorisation without an outcome counts as delivered after this."""

ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An instance may hold a value from now on; `released` once the answer went out for certain."""

    lease_id: str
    reference_id: str
    reference_name: str
    version: str
    field: str
    subject: str
    subject_idp: str
    context: str
    instance_id: str
    instance_name: str
    server_id: str
    server_name: str
    opened_at: datetime
    expires_at: datetime
    released: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """An instance does not hold it any more. `instance_id` None: whoever the lease was for."""

    lease_id: str
    instance_id: str | None
    at: datetime
    why: str


LeaseFact = Opened | Ended


def facts_of(record: AccessRecord) -> Iterable[LeaseFact]:
    """What one access record says about leases; a refusal says nothing."""
    match record.phase:
        case Phase.AUTHORISED | Phase.RELEASED:
            return [_opened(record, index) for index in range(len(record.items))]
        case Phase.ABANDONED:
            return [
                Ended(lease_id=item.lease_id, instance_id=None, at=record.at, why=ABANDONED) for item in record.items
            ]
        case Phase.REFUSED:
            return []


def _opened(record: AccessRecord, index: int) -> Opened:
    item, subject = record.items[index], record.subject
    return Opened(
        lease_id=item.lease_id,
        reference_id=item.reference_id,
        reference_name=item.reference_name,
        version=item.version or "",
        field=item.field,
        subject=subject.subject if subject else "",
        subject_idp=subject.idp_id if subject else "",
        context=record.context,
        instance_id=record.instance_id or "",
        instance_name=record.instance_name,
        server_id=record.server_id or "",
        server_name=record.server_name,
        opened_at=record.at,
        expires_at=item.expires_at,
        released=record.phase is Phase.RELEASED,
    )
