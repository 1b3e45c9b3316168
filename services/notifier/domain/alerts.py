"""What people should know. The same cause gives the same alert, so that repeating it changes nothing."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Final

from services.notifier.domain.notices import Change
from shared.events.alerts import Alert, Severity
from shared.events.changes import VaultChange
from shared.events.receipts import Finding, FindingKind

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://keyfob.dev/alerts")

REFERENCE_UNUSABLE: Final = "reference-unusable"
RECEIPT_FORGED: Final = "receipt-forged"
INSTANCE_DUPLICATED: Final = "instance-duplicated"
RECORD_UNREADABLE: Final = "record-unreadable"
VALUE_GUESSED: Final = "value-guessed"


def alert_id(kind: str, *cause: str) -> str:
    """UUIDv5 (RFC 9562, section 5.5) of what the alert is about."""
    # Joined by what no id holds: parts of different lengths don't run into each other.
    return f"alert/{uuid.uuid5(NAMESPACE, '|'.join((kind, *cause))).hex}"


def alert_for(event: Change) -> Alert | None:
    """The alert about a change, if people must know: a reference that nobody can read any more."""
    if not isinstance(event, VaultChange) or event.state.readable:
        return None
    return Alert(
        id=alert_id(REFERENCE_UNUSABLE, event.id),
        kind=REFERENCE_UNUSABLE,
        severity=Severity.WARNING,
        summary=f"The reference {event.reference_name} can't be read any more: {event.state}.",
        concerns=(event.reference_id,),
        at=event.detected_at,
    )


def forged_receipt(instance_id: str, *, known: bool, at: datetime) -> Alert:
    """Somebody wrote a receipt in an instance's name. One alert an hour for each name, however many there are."""
    why = "its signature is not by the key of that instance" if known else "there is no such instance"
    return Alert(
        id=alert_id(RECEIPT_FORGED, instance_id, f"{at:%Y-%m-%dT%H}"),
        kind=RECEIPT_FORGED,
        severity=Severity.CRITICAL,
        summary=f"A receipt in the name of {instance_id} was ignored: {why}.",
        concerns=(instance_id,),
        at=at,
    )


def duplicated_instance(instance_id: str, name: str, *, runs: tuple[str, ...], at: datetime) -> Alert:
    """Two processes act with the keys of one instance."""
    return Alert(
        id=alert_id(INSTANCE_DUPLICATED, instance_id, *sorted(runs)),
        kind=INSTANCE_DUPLICATED,
        severity=Severity.CRITICAL,
        summary=f"Two processes act as the instance {name or instance_id}: stop one, or enrol it for itself.",
        concerns=(instance_id,),
        at=at,
    )


def alert_for_finding(finding: Finding, instance_id: str, name: str) -> Alert | None:
    """Somebody supplied a server's value as an argument. One alert a lease, however often they try; None otherwise."""
    if finding.kind is not FindingKind.GUESSED:
        return None
    return Alert(
        id=alert_id(VALUE_GUESSED, instance_id, finding.lease_id),
        kind=VALUE_GUESSED,
        severity=Severity.WARNING,
        summary=f"A caller at {name or instance_id} sent an MCP server the very value that this server holds: perhaps "
        "somebody tries whether it is the right one. The audit record of this lease says who.",
        concerns=(finding.lease_id, instance_id),
        at=finding.at,
    )


def unreadable_record(topic: str, key: str, *, why: str, at: datetime) -> Alert:
    """A record of state could not be used; what depends on it is denied."""
    return Alert(
        id=alert_id(RECORD_UNREADABLE, topic, key, why),
        kind=RECORD_UNREADABLE,
        severity=Severity.CRITICAL,
        summary=f"A record of {topic} can't be used, so what depends on it is denied: {why}.",
        at=at,
    )
