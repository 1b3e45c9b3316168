"""Which changes become notices, and which alerts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.notifier.domain.alerts import alert_for
from services.notifier.domain.notices import notice_for, notice_id
from shared.events.catalog import ReferenceState
from shared.events.changes import Actor, Detection, PolicyAction, PolicyChange, VaultChange, VaultChangeKind
from shared.events.custody import ValueAction, ValueChange
from shared.events.notices import NoticeKind, Superseded
from shared.events.policy import LocalOwner

AT = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


def vault_change(kind: VaultChangeKind, **more: object) -> VaultChange:
    fields: dict[str, object] = {
        "id": "change/1",
        "seq": 7,
        "kind": kind,
        "reference_id": "reference/1",
        "reference_name": "hospital-a/db-url",
        "source_id": "source/1",
        "version": "4",
        "previous_version": "3",
        "state": ReferenceState.ACTIVE,
        "detected_by": Detection.FEED,
        "changed_at": AT,
        "detected_at": AT,
    }
    return VaultChange.model_validate(fields | more)


def policy_change(*ended: str) -> PolicyChange:
    return PolicyChange(
        id="change/2",
        seq=9,
        action=PolicyAction.DELETED,
        entity_kind="grant",
        entity_id="grant/1",
        ended=ended,
        actor=Actor(idp="idp/1", subject="alice"),
        at=AT,
    )


def test_a_rotation_supersedes_all_other_versions_and_lets_calls_drain() -> None:
    notice = notice_for(vault_change(VaultChangeKind.ROTATED))

    assert notice is not None
    assert notice.kind is NoticeKind.ROTATION
    assert notice.superseded == (Superseded(reference_id="reference/1", current="4"),)
    assert (notice.catalog_seq, notice.policy_seq, notice.ended) == (7, None, ())


@pytest.mark.parametrize("state", [state for state in ReferenceState if not state.readable])
@pytest.mark.parametrize("kind", [VaultChangeKind.STATE_CHANGED, VaultChangeKind.ROTATED])
def test_a_reference_that_nobody_may_read_ends_every_lease_at_once(
    state: ReferenceState, kind: VaultChangeKind
) -> None:
    notice = notice_for(vault_change(kind, state=state))

    assert notice is not None
    assert notice.kind is NoticeKind.REVOCATION
    assert notice.superseded == (Superseded(reference_id="reference/1", current=None),)


def test_a_discovery_ends_nothing() -> None:
    assert notice_for(vault_change(VaultChangeKind.DISCOVERED, previous_version=None)) is None


def test_a_return_to_a_readable_state_under_the_same_version_ends_nothing() -> None:
    change = vault_change(VaultChangeKind.STATE_CHANGED, previous_state=ReferenceState.DISABLED, previous_version="4")
    assert notice_for(change) is None


def test_a_return_under_another_version_supersedes_the_one_before() -> None:
    notice = notice_for(vault_change(VaultChangeKind.STATE_CHANGED, previous_state=ReferenceState.DISABLED))
    assert notice is not None
    assert notice.superseded == (Superseded(reference_id="reference/1", current="4"),)


def test_what_policy_ended_is_revoked() -> None:
    notice = notice_for(policy_change("grant/1", "binding/1"))

    assert notice is not None
    assert notice.kind is NoticeKind.REVOCATION
    assert notice.ended == ("grant/1", "binding/1")
    assert (notice.policy_seq, notice.catalog_seq) == (9, None)


def test_a_policy_change_that_ends_nothing_makes_no_notice() -> None:
    assert notice_for(policy_change()) is None


def test_the_same_event_gives_the_same_notice_and_another_event_another() -> None:
    first, again = notice_for(policy_change("grant/1")), notice_for(policy_change("grant/1"))

    assert first is not None
    assert again is not None
    assert first.to_json() == again.to_json()
    assert notice_id("change/2") != notice_id("change/3")


def value_change(action: ValueAction) -> ValueChange:
    return ValueChange(
        id="change/3",
        seq=4,
        action=action,
        value_id="value/1",
        version=3,
        owner_kind=LocalOwner.SUBJECT,
        owner="ana",
        owner_idp="idp/1",
        server_id="server/1",
        server_name="patients-db",
        field="DB_URL",
        actor=Actor(idp="idp/1", subject="ana"),
        at=AT,
    )


def test_a_replaced_local_value_lets_calls_drain_and_a_deleted_one_ends_at_once() -> None:
    replaced, deleted = notice_for(value_change(ValueAction.REPLACED)), notice_for(value_change(ValueAction.DELETED))
    assert replaced is not None
    assert deleted is not None
    assert (replaced.kind, deleted.kind) == (NoticeKind.ROTATION, NoticeKind.REVOCATION)
    assert replaced.superseded == (Superseded(reference_id="value/1", current="3"),)
    assert deleted.superseded == (Superseded(reference_id="value/1", current=None),)
    assert (replaced.policy_seq, replaced.catalog_seq, replaced.custody_seq) == (None, None, 4)


def test_nobody_who_reads_notices_learns_whose_value_it_is_and_for_what() -> None:
    notice = notice_for(value_change(ValueAction.REPLACED))
    assert notice is not None
    assert not any(word in notice.to_json() for word in (b"ana", b"patients-db", b"DB_URL"))


def test_a_first_local_value_ends_nothing() -> None:
    assert notice_for(value_change(ValueAction.SET)) is None
    assert alert_for(value_change(ValueAction.SET)) is None


def test_people_are_told_of_a_reference_that_nobody_can_read() -> None:
    removed = vault_change(VaultChangeKind.STATE_CHANGED, state=ReferenceState.REMOVED)

    alert = alert_for(removed)

    assert alert is not None
    assert alert.concerns == ("reference/1",)
    assert "hospital-a/db-url" in alert.summary
    assert alert == alert_for(removed)


def test_a_rotation_alarms_nobody() -> None:
    assert alert_for(vault_change(VaultChangeKind.ROTATED)) is None
    assert alert_for(policy_change("grant/1")) is None
