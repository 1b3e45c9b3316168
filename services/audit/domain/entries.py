"""Events to audit entries: pure functions. An entry is a record that has no number yet.

`Cause.key` is the event's natural key within its topic: the same event always gives the same, so that delivering it
twice records it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.audit.domain.leases import Opened
from shared import topics
from shared.events.access import AccessItem, AccessRecord, Phase
from shared.events.alerts import Alert
from shared.events.audit import AuditAction, AuditRecord, AuditReference
from shared.events.changes import PolicyChange, VaultChange, VaultChangeKind
from shared.events.policy import DeliveryProfile
from shared.events.receipts import FindingKind, GatewayReceipt

# Spelled out: a phase without a word here is an error, and is never recorded as something else.
_ACTIONS = {
    Phase.AUTHORISED: AuditAction.ACCESS_AUTHORISED,
    Phase.RELEASED: AuditAction.ACCESS_RELEASED,
    Phase.ABANDONED: AuditAction.ACCESS_ABANDONED,
    Phase.REFUSED: AuditAction.ACCESS_REFUSED,
}
_FOUND = {
    FindingKind.REDACTED: AuditAction.VALUE_REDACTED,
    FindingKind.GUESSED: AuditAction.VALUE_GUESSED,
}
_DECISIONS = {
    Phase.AUTHORISED: "allowed",
    Phase.RELEASED: "allowed",
    Phase.ABANDONED: "abandoned",
    Phase.REFUSED: "refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The event that an entry was made from: `key` is what makes it the same one when it comes again.

    `stream`, `n` and `hash`, of the payload, only for numbered streams.
    """

    topic: str
    key: str
    id: str
    stream: str = ""
    n: int | None = None
    hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded; `log` and number come when it is written."""

    cause: Cause
    at: datetime
    action: AuditAction
    decision: str = ""
    reason: str = ""
    actor: str = ""
    actor_idp: str = ""
    instance_id: str = ""
    instance_name: str = ""
    server_id: str = ""
    server_name: str = ""
    context: str = ""
    references: tuple[AuditReference, ...] = field(default=())
    entity_id: str = ""
    detail: str = ""
    policy_seq: int | None = None
    catalog_seq: int | None = None
    trace_id: str = ""

    def numbered(self, log: str, n: int) -> AuditRecord:
        """The record of this entry at its place in a log."""
        return AuditRecord(
            log=log,
            n=n,
            at=self.at,
            action=self.action,
            decision=self.decision,
            reason=self.reason,
            actor=self.actor,
            actor_idp=self.actor_idp,
            instance_id=self.instance_id,
            instance_name=self.instance_name,
            server_id=self.server_id,
            server_name=self.server_name,
            context=self.context,
            references=self.references,
            entity_id=self.entity_id,
            detail=self.detail,
            policy_seq=self.policy_seq,
            catalog_seq=self.catalog_seq,
            trace_id=self.trace_id,
            cause_topic=self.cause.topic,
            cause_id=self.cause.id,
            cause_stream=self.cause.stream,
            cause_n=self.cause.n,
        )


def access_key(stream: str, n: int) -> str:
    """The key of one record of a stream."""
    return f"{stream}/{n}"


def access_entry(record: AccessRecord, *, digest: str) -> Entry:
    """An access, its outcome or its refusal; `digest` is its payload's hash. The entity joins outcome and access."""
    subject = record.subject
    return Entry(
        cause=Cause(
            topic=topics.ACCESS,
            key=access_key(record.stream, record.n),
            id=record.id,
            stream=record.stream,
            n=record.n,
            hash=digest,
        ),
        at=record.at,
        action=_ACTIONS[record.phase],
        decision=_DECISIONS[record.phase],
        reason=record.reason,
        actor=subject.subject if subject else "",
        actor_idp=subject.idp_id if subject else "",
        instance_id=record.instance_id or "",
        instance_name=record.instance_name,
        server_id=record.server_id or "",
        server_name=record.server_name,
        context=record.context,
        references=tuple(map(_reference, record.items)),
        entity_id=record.resolution_id,
        detail=_how(record),
        policy_seq=record.policy_seq,
        catalog_seq=record.catalog_seq,
        trace_id=record.trace_id,
    )


def _how(record: AccessRecord) -> str:
    """By which groups, and through which door where it was not the one that seals."""
    groups = record.subject.groups if record.subject else ()
    said = [f"groups: {', '.join(groups)}"] if groups else []
    if record.delivery is not DeliveryProfile.SEALED:
        said.append(f"profile {record.delivery}")
    if record.unrecorded:
        said.append(f"{record.unrecorded} more like it")
    return "; ".join(said)


def _reference(item: AccessItem) -> AuditReference:
    return AuditReference(id=item.reference_id, name=item.reference_name, field=item.field, version=item.version or "")


def vault_entry(change: VaultChange, *, trace_id: str = "") -> Entry:
    """Something that happened to a reference in its source."""
    # A rotation is told by versions, a change of state by states; a discovery has nothing before it.
    before = change.previous_version or change.previous_state or ""
    after = change.state if change.kind is VaultChangeKind.STATE_CHANGED else change.version
    reference = AuditReference(id=change.reference_id, name=change.reference_name, version=change.version)
    return Entry(
        cause=Cause(topic=topics.VAULT_CHANGES, key=change.id, id=change.id),
        at=change.detected_at,
        action=AuditAction.REFERENCE_CHANGED,
        decision=change.kind,
        reason=change.detected_by,
        references=(reference,),
        entity_id=change.reference_id,
        detail=f"{before} → {after}" if before else str(after),
        catalog_seq=change.seq,
        trace_id=trace_id,
    )


def policy_entry(change: PolicyChange, *, trace_id: str = "") -> Entry:
    """What an administrator, or the clock, changed."""
    return Entry(
        cause=Cause(topic=topics.POLICY_CHANGES, key=change.id, id=change.id),
        at=change.at,
        action=AuditAction.POLICY_CHANGED,
        decision=change.action,
        actor=change.actor.subject,
        actor_idp=change.actor.idp,
        entity_id=change.entity_id,
        detail=f"{change.entity_kind} {change.entity_name}".strip(),
        policy_seq=change.seq,
        trace_id=trace_id,
    )


def lease_entries(
    receipt: GatewayReceipt, *, instance_name: str, leases: Mapping[str, Opened], trace_id: str = ""
) -> Iterable[Entry]:
    """The leases that a gateway says are over; a heartbeat without any gives nothing.

    `leases` are those on record, by id: whose a lease was stands in its entry if it was that gateway's own.
    """
    for ended in receipt.ended:
        entry = Entry(
            # Not the receipt's own number: the same end is told again until a receipt is durable.
            cause=Cause(topic=topics.RECEIPTS, key=f"{receipt.instance_id}|{ended.lease_id}", id=ended.lease_id),
            at=ended.at,
            action=AuditAction.LEASE_ENDED,
            reason=ended.why,
            instance_id=receipt.instance_id,
            instance_name=instance_name,
            entity_id=ended.lease_id,
            trace_id=trace_id,
        )
        lease = leases.get(ended.lease_id)
        yield entry if lease is None or lease.instance_id != receipt.instance_id else _of_lease(entry, lease)


def finding_entries(
    receipt: GatewayReceipt, *, instance_name: str, leases: Mapping[str, Opened], trace_id: str = ""
) -> Iterable[Entry]:
    """Values that showed in what a server or its caller said; `leases` as for `lease_entries`."""
    for finding in receipt.findings:
        entry = Entry(
            cause=Cause(topic=topics.RECEIPTS, key=f"{receipt.instance_id}|{finding.id}", id=finding.id),
            at=finding.at,
            action=_FOUND[finding.kind],
            reason=finding.kind,
            instance_id=receipt.instance_id,
            instance_name=instance_name,
            entity_id=finding.lease_id,
            detail=f"{finding.places} place{'s' if finding.places > 1 else ''}",
            trace_id=trace_id,
        )
        lease = leases.get(finding.lease_id)
        yield entry if lease is None or lease.instance_id != receipt.instance_id else _of_lease(entry, lease)


def _of_lease(entry: Entry, lease: Opened) -> Entry:
    reference = AuditReference(
        id=lease.reference_id, name=lease.reference_name, field=lease.field, version=lease.version
    )
    return replace(
        entry,
        actor=lease.subject,
        actor_idp=lease.subject_idp,
        server_id=lease.server_id,
        server_name=lease.server_name,
        context=lease.context,
        references=(reference,),
    )


def alert_entry(alert: Alert, *, trace_id: str = "") -> Entry:
    """What people were told."""
    return Entry(
        cause=Cause(topic=topics.ALERTS, key=alert.id, id=alert.id),
        at=alert.at,
        action=AuditAction.ALERT_RAISED,
        decision=alert.severity,
        reason=alert.kind,
        entity_id=alert.concerns[0] if alert.concerns else "",
        detail=alert.summary,
        trace_id=trace_id,
    )
