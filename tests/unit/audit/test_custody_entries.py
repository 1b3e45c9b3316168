"""What happens to keys and local values is on the record: who, what, which key, never what it was."""

from __future__ import annotations

import pytest

from services.audit.domain.custody import custody_entry
from services.audit.handlers import ChangeTrail
from services.dev.contracts.examples import EXAMPLES
from shared.bus.cloudevents import Message, Unreadable, encode
from shared.events.audit import AuditAction
from shared.events.contract import Contract
from shared.events.custody import KeyAction, KeyChange, ValueChange
from tests.fakes.journal import FakeJournal

KEY = next(one for one in EXAMPLES if isinstance(one, KeyChange))
VALUE = next(one for one in EXAMPLES if isinstance(one, ValueChange))


def message(contract: Contract) -> Message:
    return encode(contract, key="any", source="keyfob/resolver", event_id="one")


def test_a_new_current_key_is_told_with_the_one_before_and_who_can_restore_it() -> None:
    entry = custody_entry(KEY, trace_id="t")
    assert entry.action is AuditAction.KEY_CHANGED
    assert entry.decision == "made-current"
    assert entry.entity_id == f"key/{KEY.key_id}"
    assert entry.actor == "alice"
    assert entry.detail == (f"{KEY.values} values, after {KEY.previous_key_id}, recoverable by {KEY.recovery_key_id}")


def test_a_key_that_nothing_restores_is_told_as_such() -> None:
    assert custody_entry(KEY.model_copy(update={"recovery_key_id": None})).detail.endswith("not recoverable")


def test_a_rotation_that_left_something_behind_says_so() -> None:
    done = KEY.model_copy(update={"action": KeyAction.REWRAPPED, "damaged": 2, "previous_key_id": None})
    assert custody_entry(done).detail == f"{KEY.values} values, 2 left that did not open"


def test_a_value_is_told_by_its_place_and_version() -> None:
    entry = custody_entry(VALUE)
    assert entry.action is AuditAction.VALUE_CHANGED
    (reference,) = entry.references
    assert (reference.id, reference.name, reference.version) == ("value/3f7a", "local value patients-db/DB_URL", "2")
    assert entry.detail == f"of profile {VALUE.owner}"


async def test_both_kinds_are_recorded_once_however_often_they_come() -> None:
    journal = FakeJournal()
    trail = ChangeTrail(journal.begin)
    for _ in range(2):
        await trail.on_custody_changes((message(KEY), message(VALUE)))
    assert [record.action for record in journal.log] == [AuditAction.KEY_CHANGED, AuditAction.VALUE_CHANGED]


async def test_what_is_neither_is_unreadable() -> None:
    journal = FakeJournal()
    other = next(one for one in EXAMPLES if one.TOPIC != KEY.TOPIC)
    with pytest.raises(Unreadable):
        await ChangeTrail(journal.begin).on_custody_changes((message(other),))
    assert journal.log == []
