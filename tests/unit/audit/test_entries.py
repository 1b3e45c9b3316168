"""What each event becomes in the log."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import orjson
import pytest

from services.audit.domain.entries import (
    Entry,
    access_entry,
    alert_entry,
    finding_entries,
    lease_entries,
    policy_entry,
    vault_entry,
)
from services.audit.domain.leases import Ended, Opened, facts_of
from services.dev.contracts.examples import EXAMPLES
from shared.events.access import Phase
from shared.events.alerts import Alert
from shared.events.audit import AuditAction, AuditRecord
from shared.events.changes import PolicyChange, VaultChange
from shared.events.receipts import EndedLease, Finding, FindingKind, GatewayReceipt, LeaseEnd
from tests.unit.audit.accesses import AT, access, digest, item

SCHEMA = Path(__file__).parents[3] / "schemas" / "events" / "keyfob.audit.record" / "v1.json"


def example(model: type) -> object:
    return next(one for one in EXAMPLES if isinstance(one, model))


def opened(**more: str) -> Opened:
    (fact,) = facts_of(access(Phase.RELEASED, items=(item(version="3"),), **more))
    assert isinstance(fact, Opened)
    return fact


def receipt(*lease_ids: str, instance_id: str = "instance/1") -> GatewayReceipt:
    ended = tuple(EndedLease(lease_id=one, why=LeaseEnd.NOTICE, at=AT) for one in lease_ids)
    return GatewayReceipt(
        instance_id=instance_id, run="run/1", n=0, applied_offset=1, dropped_offset=1, open_leases=0, ended=ended, at=AT
    )


@pytest.mark.parametrize(
    ("phase", "action", "decision"),
    [
        (Phase.AUTHORISED, AuditAction.ACCESS_AUTHORISED, "allowed"),
        (Phase.RELEASED, AuditAction.ACCESS_RELEASED, "allowed"),
        (Phase.ABANDONED, AuditAction.ACCESS_ABANDONED, "abandoned"),
        (Phase.REFUSED, AuditAction.ACCESS_REFUSED, "refused"),
    ],
)
def test_an_access_says_who_for_which_context_what_where_and_the_decision(
    phase: Phase, action: AuditAction, decision: str
) -> None:
    record = access(phase)
    entry = access_entry(record, digest=digest(record))
    assert (entry.action, entry.decision) == (action, decision)
    assert (entry.actor, entry.actor_idp, entry.context) == ("agent-a", "idp/1", "hospital-a")
    assert (entry.instance_name, entry.server_name) == ("gateway-1", "patients-db")
    assert entry.entity_id == "resolution/1"
    assert entry.detail == "groups: nurses-a, night-shift"
    assert (entry.policy_seq, entry.catalog_seq, entry.trace_id) == (9, 2, record.trace_id)


def test_a_refusal_of_nobody_is_a_record_too() -> None:
    record = access(Phase.REFUSED, subject=None, instance_id=None, server_id=None, profile_id=None, reason="token")
    numbered = access_entry(record, digest="d").numbered("log/main", 1)
    assert (numbered.actor, numbered.instance_id, numbered.reason) == ("", "", "token")


def test_natural_keys_tell_causes_apart_and_repetitions_together() -> None:
    first, second = access(n=0), access(n=1)
    entries = [access_entry(one, digest="d") for one in (first, second, first)]
    assert entries[0].cause == entries[2].cause != entries[1].cause
    (mine,) = lease_entries(receipt("lease/1"), instance_name="", leases={})
    (others,) = lease_entries(receipt("lease/1", instance_id="instance/2"), instance_name="", leases={})
    assert mine.cause.key != others.cause.key


def test_the_end_of_a_lease_says_whose_it_was() -> None:
    (entry,) = lease_entries(receipt("lease/1"), instance_name="gateway-1", leases={"lease/1": opened()})
    assert (entry.actor, entry.context, entry.reason) == ("agent-a", "hospital-a", "notice")
    assert [(one.name, one.version) for one in entry.references] == [("hospital-a/db-url", "3")]


def test_an_instance_that_ends_anothers_lease_learns_and_changes_nothing_of_it() -> None:
    foreign = {"lease/1": opened(instance_id="instance/2")}
    (entry,) = lease_entries(receipt("lease/1"), instance_name="gateway-1", leases=foreign)
    assert (entry.actor, entry.references) == ("", ())


@pytest.mark.parametrize(
    ("kind", "places", "action", "detail"),
    [
        (FindingKind.REDACTED, 3, AuditAction.VALUE_REDACTED, "3 places"),
        (FindingKind.GUESSED, 1, AuditAction.VALUE_GUESSED, "1 place"),
    ],
)
def test_a_value_that_showed_is_a_record_that_says_whose_and_how_often(
    kind: FindingKind, places: int, action: AuditAction, detail: str
) -> None:
    finding = Finding(id="finding/1", kind=kind, lease_id="lease/1", places=places, at=AT)
    said = receipt().model_copy(update={"findings": (finding,)})
    (entry,) = finding_entries(said, instance_name="gateway-1", leases={"lease/1": opened()})
    assert (entry.action, entry.detail, entry.actor) == (action, detail, "agent-a")
    assert [one.name for one in entry.references] == ["hospital-a/db-url"]
    (strangers,) = finding_entries(said, instance_name="", leases={"lease/1": opened(instance_id="instance/2")})
    assert (strangers.actor, strangers.references) == ("", ())


def test_a_heartbeat_is_no_record() -> None:
    assert list(lease_entries(receipt(), instance_name="gateway-1", leases={})) == []


def entries() -> list[Entry]:
    record = access()
    vault, policy, alert = example(VaultChange), example(PolicyChange), example(Alert)
    assert isinstance(vault, VaultChange)
    assert isinstance(policy, PolicyChange)
    assert isinstance(alert, Alert)
    return [
        access_entry(record, digest="d"),
        vault_entry(vault, trace_id="t"),
        policy_entry(policy, trace_id="t"),
        alert_entry(alert, trace_id="t"),
        *lease_entries(receipt("lease/1"), instance_name="gateway-1", leases={}, trace_id="t"),
    ]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.action)
def test_every_record_is_what_the_published_schema_says(entry: Entry) -> None:
    payload = entry.numbered("log/main", 1).to_json()
    jsonschema.validate(orjson.loads(payload), orjson.loads(SCHEMA.read_bytes()))
    assert AuditRecord.model_validate_json(payload).n == 1


def test_facts_about_leases() -> None:
    assert [fact.released for fact in facts_of(access(Phase.AUTHORISED)) if isinstance(fact, Opened)] == [False]
    assert [fact.released for fact in facts_of(access(Phase.RELEASED)) if isinstance(fact, Opened)] == [True]
    (withdrawn,) = facts_of(access(Phase.ABANDONED))
    assert isinstance(withdrawn, Ended)
    assert withdrawn.instance_id is None
    assert list(facts_of(access(Phase.REFUSED))) == []
