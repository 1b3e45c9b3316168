"""What happened to installation keys and to local values, as audit entries."""

from __future__ import annotations

from typing import TypeAlias

from services.audit.domain.entries import Cause, Entry
from shared import topics
from shared.events.audit import AuditAction, AuditReference
from shared.events.custody import KeyAction, KeyChange, ValueChange

CustodyChange: TypeAlias = KeyChange | ValueChange


def custody_entry(change: CustodyChange, *, trace_id: str = "") -> Entry:
    """The entry of one act; neither has a value or a key in it."""
    match change:
        case KeyChange():
            return _key_entry(change, trace_id)
        case ValueChange():
            return _value_entry(change, trace_id)


def _key_entry(change: KeyChange, trace_id: str) -> Entry:
    return Entry(
        cause=Cause(topic=topics.CUSTODY_CHANGES, key=change.id, id=change.id),
        at=change.at,
        action=AuditAction.KEY_CHANGED,
        decision=change.action,
        actor=change.actor.subject,
        actor_idp=change.actor.idp,
        entity_id=f"key/{change.key_id}",
        detail=_about(change),
        trace_id=trace_id,
    )


def _about(change: KeyChange) -> str:
    parts = [f"{change.values} values"]
    if change.damaged:
        parts.append(f"{change.damaged} left that did not open")
    if change.previous_key_id is not None:
        parts.append(f"after {change.previous_key_id}")
    if change.action is KeyAction.MADE_CURRENT:
        recovery = change.recovery_key_id
        parts.append(f"recoverable by {recovery}" if recovery else "not recoverable")
    return ", ".join(parts)


def _value_entry(change: ValueChange, trace_id: str) -> Entry:
    name = f"local value {change.server_name}/{change.field}"
    return Entry(
        cause=Cause(topic=topics.CUSTODY_CHANGES, key=change.id, id=change.id),
        at=change.at,
        action=AuditAction.VALUE_CHANGED,
        decision=change.action,
        actor=change.actor.subject,
        actor_idp=change.actor.idp,
        server_id=change.server_id,
        server_name=change.server_name,
        references=(AuditReference(id=change.value_id, name=name, field=change.field, version=str(change.version)),),
        entity_id=change.value_id,
        detail=f"of {change.owner_kind} {change.owner}",
        trace_id=trace_id,
    )
