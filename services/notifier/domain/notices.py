"""Which events end leases, and the notice that says so. The same event always gives the same notice, byte for byte."""

from __future__ import annotations

import uuid
from typing import Final

from shared.events.changes import PolicyChange, VaultChange, VaultChangeKind
from shared.events.custody import ValueAction, ValueChange
from shared.events.notices import Notice, NoticeKind, Superseded

# Never to be changed: ids of notices that are already in topics and databases follow from it.
NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://keyfob.dev/notices")

Change = VaultChange | PolicyChange | ValueChange


def notice_id(cause_id: str) -> str:
    """The id of the notice about one event: UUIDv5 of the event's id (RFC 9562, section 5.5)."""
    return f"notice/{uuid.uuid5(NAMESPACE, cause_id).hex}"


def notice_for(event: Change) -> Notice | None:
    """What gateways must be told about `event`; None when no lease can rest on what it ended."""
    match event:
        case PolicyChange(ended=()):
            return None
        case PolicyChange():
            return Notice(
                id=notice_id(event.id),
                kind=NoticeKind.REVOCATION,
                cause_id=event.id,
                ended=event.ended,
                policy_seq=event.seq,
                at=event.at,
            )
        case VaultChange():
            return _about_reference(event)
        case ValueChange():
            return _about_value(event)


def _about_reference(event: VaultChange) -> Notice | None:
    """A version that was replaced lets calls drain; a reference that nobody may read any more ends at once."""
    # No lease can rest on a reference that nobody knew of.
    if event.kind is VaultChangeKind.DISCOVERED:
        return None
    # Before the version: of a reference that nobody may read no version may be used, the current one included.
    if not event.state.readable:
        return _superseding(event, NoticeKind.REVOCATION, current=None)
    # A reference may come back from an unreadable state under another version than leases were made of.
    if event.kind is VaultChangeKind.ROTATED or event.previous_version not in (None, event.version):
        return _superseding(event, NoticeKind.ROTATION, current=event.version)
    return None


def _superseding(event: VaultChange, kind: NoticeKind, *, current: str | None) -> Notice:
    return Notice(
        id=notice_id(event.id),
        kind=kind,
        cause_id=event.id,
        superseded=(Superseded(reference_id=event.reference_id, current=current),),
        catalog_seq=event.seq,
        at=event.detected_at,
    )


def _about_value(event: ValueChange) -> Notice | None:
    """A value that was replaced lets calls drain, one that was deleted ends at once; no lease rests on a first one."""
    if event.action is ValueAction.SET:
        return None
    replaced = event.action is ValueAction.REPLACED
    current = str(event.version) if replaced else None
    return Notice(
        id=notice_id(event.id),
        kind=NoticeKind.ROTATION if replaced else NoticeKind.REVOCATION,
        cause_id=event.id,
        superseded=(Superseded(reference_id=event.value_id, current=current),),
        custody_seq=event.seq,
        at=event.at,
    )
