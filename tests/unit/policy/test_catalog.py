"""References by id and by name, as records arrive."""

from __future__ import annotations

from typing import Any

from services.policy.catalog import References, apply
from shared import topics
from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.projection.changes import Removed, Upserted, Why
from shared.projection.records import TypedRecord
from tests.unit.policy.stories import reference


def said(record: ReferenceRecord) -> Upserted:
    typed: dict[str, Any] = {"topic": topics.CATALOG, "key": record.id, "type": record.TYPE, "seq": record.seq}
    return Upserted(TypedRecord(**typed, record=record, payload=record.to_json(), signed=None, key_id=None))


def after(*changes: Upserted | Removed) -> References:
    snapshot = References()
    for change in changes:
        snapshot = apply(snapshot, change)
    return snapshot


def test_a_reference_is_found_by_its_name() -> None:
    one = reference("a")
    assert after(said(one)).ids.get("a") == one.id


def test_a_new_name_replaces_the_old_one() -> None:
    one = reference("a")
    snapshot = after(said(one), said(one.model_copy(update={"name": "b"})))
    assert (snapshot.ids.get("a"), snapshot.ids.get("b")) == (None, one.id)


def test_a_removed_reference_keeps_its_id_and_frees_its_name_for_its_successor() -> None:
    old, new = reference("a"), reference("b").model_copy(update={"name": "a"})
    gone = said(old.model_copy(update={"state": ReferenceState.REMOVED}))
    for order in ((said(old), gone, said(new)), (said(old), said(new), gone)):
        snapshot = after(*order)
        assert snapshot.ids.get("a") == new.id
        assert old.id in snapshot.by_id


def test_what_can_no_longer_be_read_is_gone() -> None:
    one = reference("a")
    snapshot = after(said(one), Removed(key=one.id, kind=one.TYPE, why=Why.UNREADABLE))
    assert (snapshot.ids.get("a"), snapshot.by_id.get(one.id)) == (None, None)


def test_removing_the_unknown_changes_nothing() -> None:
    one = said(reference("a"))
    assert after(one, Removed(key="reference/none", kind=None, why=Why.DELETED)) == after(one)
