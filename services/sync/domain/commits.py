"""What a commit says because of a finding, or of what people want: the record after it, and the change."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from services.sync.domain.detection import (
    GONE,
    Discovered,
    Finding,
    Known,
    Redescribed,
    Renamed,
    Rotated,
    StateChanged,
    described_by,
)
from services.sync.domain.observations import Found
from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.events.changes import Detection, VaultChange, VaultChangeKind


@dataclass(frozen=True, slots=True)
class Applied:
    """What a commit says because of one finding. `change` is None when nobody needs to act."""

    known: Known
    change: VaultChange | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The commit that findings are applied in."""

    seq: int
    at: datetime
    detected_by: Detection


def apply(finding: Finding, moment: Moment, *, name: str, source_id: str) -> Applied:
    """The reference after `finding`. `name` and `source_id` are used for a discovered one only."""
    match finding:
        case Discovered(found, key):
            return _discover(found, key, moment, name=name, source_id=source_id)
        case Rotated(known, found):
            return _change(known, VaultChangeKind.ROTATED, _updated(known, found, moment, found.state), found, moment)
        case StateChanged(known, state, found):
            after = revised(known, moment.seq, state=state) if found is None else _updated(known, found, moment, state)
            return _change(known, VaultChangeKind.STATE_CHANGED, after, found, moment)
        case Renamed(known, successor):
            after = revised(known, moment.seq, state=ReferenceState.RENAMED, successor_id=successor.id)
            return _change(known, VaultChangeKind.STATE_CHANGED, after, None, moment)
        case Redescribed(known, found):
            return Applied(_updated(known, found, moment, known.record.state), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What people want to change; None leaves it."""

    name: str | None = None
    owner: str | None = None
    description: str | None = None


def edited(known: Known, edit: Edit) -> Known:
    """The reference as people want it: what they wrote, the source's own words no longer change."""
    wanted = {"name": edit.name, "owner": edit.owner, "description": edit.description}
    changes = {field: text for field, text in wanted.items() if text is not None}
    # A name is always a person's or ours: no source ever gives one, so there is nothing to protect it from.
    written = known.set_by_admin | (changes.keys() - {"name"})
    return replace(known, record=known.record.model_copy(update=changes), set_by_admin=written)


def forget(known: Known, moment: Moment) -> Applied:
    """The reference when its source is no longer connected: gone, and its name is free again."""
    if known.record.state in GONE:
        return Applied(revised(known, moment.seq, deleted=True), None)
    after = revised(known, moment.seq, state=ReferenceState.REMOVED, deleted=True)
    return _change(known, VaultChangeKind.STATE_CHANGED, after, None, moment)


def _discover(found: Found, key: str | None, moment: Moment, *, name: str, source_id: str) -> Applied:
    record = ReferenceRecord(
        id=f"reference/{uuid.uuid4().hex}",
        seq=moment.seq,
        revision=1,
        name=name,
        source_id=source_id,
        path=found.path,
        key=key,
        version=str(found.version),
        state=found.state,
        owner=found.owner,
        description=found.description,
        changed_at=found.created_at,
    )
    known = Known(record=record, born_at=found.born_at)
    change = _say(record, VaultChangeKind.DISCOVERED, moment, changed_at=found.created_at, before=None)
    return Applied(known, change)


def revised(known: Known, seq: int, **changes: object) -> Known:
    """The reference with `changes`, as commit `seq` says it."""
    counted = {"seq": seq, "revision": known.record.revision + 1}
    return replace(known, record=known.record.model_copy(update=changes | counted))


def _updated(known: Known, found: Found, moment: Moment, state: ReferenceState) -> Known:
    owner, description = described_by(known, found)
    # What is back goes on by itself: a successor would send people to the wrong place.
    successor_id = known.record.successor_id if state in GONE else None
    after = revised(
        known,
        moment.seq,
        version=str(found.version),
        state=state,
        owner=owner,
        description=description,
        changed_at=found.created_at,
        successor_id=successor_id,
    )
    return replace(after, born_at=found.born_at)


def _change(before: Known, kind: VaultChangeKind, after: Known, found: Found | None, moment: Moment) -> Applied:
    # A path that is no longer shown has no time of its provider: the moment of the look bounds it.
    changed_at = moment.at
    if found is not None:
        # A new version has a moment of its own; another state of the same one began when the source says.
        changed_at = found.created_at if kind is VaultChangeKind.ROTATED else found.since
    return Applied(after, _say(after.record, kind, moment, changed_at=changed_at, before=before.record))


def _say(
    record: ReferenceRecord,
    kind: VaultChangeKind,
    moment: Moment,
    *,
    changed_at: datetime,
    before: ReferenceRecord | None,
) -> VaultChange:
    return VaultChange(
        id=f"change/{uuid.uuid4().hex}",
        seq=moment.seq,
        kind=kind,
        reference_id=record.id,
        reference_name=record.name,
        source_id=record.source_id,
        version=record.version,
        previous_version=None if before is None else before.version,
        state=record.state,
        previous_state=None if before is None else before.state,
        detected_by=moment.detected_by,
        changed_at=changed_at,
        detected_at=moment.at,
    )
