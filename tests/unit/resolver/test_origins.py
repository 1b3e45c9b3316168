"""What the resolver does with each origin of a binding; what it can't bring it refuses, and records that it did."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.resolver.domain.decision import Denied, Reason
from services.resolver.domain.plans import FieldRule, InstanceVariable
from shared.crypto.signing import SigningKey
from shared.delivery.messages import IN_PLACE
from shared.errors import NotAvailable
from shared.events.access import Phase
from shared.events.policy import EnvironmentOrigin, LocalOwner, LocalValueOrigin, Origin, VariableRecord
from tests.fakes.estate import Estate, hospitals, patients_db
from tests.fakes.gateway import FakeGateway
from tests.fakes.resolving import Bench
from tests.unit.resolver.table import Table
from tests.waiting import until

LOCAL: dict[str, Origin] = {owner: LocalValueOrigin(owner=owner) for owner in LocalOwner}
VARIABLE = "HOSPITAL_DB_URL"
HERE = EnvironmentOrigin(variable=VARIABLE)
ELSEWHERE: dict[str, Origin] = {**LOCAL, "environment": HERE}


@pytest.fixture
def table() -> Table:
    estate = hospitals()
    estate.instance(labels={"env": "prod", "tenant": "a"})
    estate.variable(VARIABLE)
    return Table(estate)


@pytest.mark.parametrize("origin", LOCAL.values(), ids=LOCAL)
def test_an_origin_that_this_resolver_cannot_bring_is_refused_like_what_is_not_there(
    table: Table, origin: Origin
) -> None:
    table.estate.binding_to("hospital-a", origin)
    decided = table.ask()
    assert isinstance(decided, Denied)
    assert decided.reason is Reason.ORIGIN_UNSUPPORTED
    assert isinstance(decided.error, NotAvailable)


@pytest.mark.parametrize("origin", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_request_never_picks_a_reference_for_a_field_that_comes_from_elsewhere(table: Table, origin: Origin) -> None:
    table.estate.binding_to("hospital-a", origin)
    assert table.reason(choices={"DB_URL": "hospital-a/db-dsn"}) is Reason.CHOICE_NOT_OPEN


def test_a_mapped_variable_needs_no_reference_and_rests_on_all_that_led_to_it(table: Table) -> None:
    table.estate.binding_to("hospital-a", HERE)
    for gone in ("reference/hospital-a/db-dsn", "source/vault", "grant/hospital-a-hospital-a/db-dsn"):
        table.estate.end(gone)
    (item,) = table.plan().items
    assert isinstance(item.place, InstanceVariable)
    assert (item.place.name, item.place.source_id, item.ends_at) == (VARIABLE, "instance/gateway-1", None)
    assert item.rule is FieldRule.BINDING
    assert set(item.rests_on) == {
        "idp/okta",
        "mapping/hospital-a-staff-hospital-a",
        "profile/hospital-a",
        "server/patients-db",
        "instance/gateway-1",
        "binding/hospital-a-patients-db-DB_URL",
        f"variable/{VARIABLE}",
    }


def test_a_variable_that_is_not_on_the_list_is_not_given(table: Table) -> None:
    table.estate.binding_to("hospital-a", HERE)
    table.estate.end(f"variable/{VARIABLE}")
    assert table.reason() is Reason.VARIABLE_NOT_ALLOWED
    table.estate.write(VariableRecord, f"variable/{VARIABLE}", signed_by=SigningKey.generate(), name=VARIABLE)
    assert table.reason() is Reason.VARIABLE_NOT_ALLOWED


def test_two_entries_of_one_variable_are_none(table: Table) -> None:
    """Policy keeps one; of two, nobody can say whose labels count."""
    table.estate.binding_to("hospital-a", HERE)
    table.estate.write(VariableRecord, "variable/second", name=VARIABLE)
    assert table.reason() is Reason.VARIABLE_NOT_ALLOWED


@pytest.mark.parametrize(
    ("binding", "variable", "refusal"),
    [
        ({}, {}, None),
        ({"env": "prod"}, {}, None),
        ({}, {"tenant": "a"}, None),
        ({"env": "prod"}, {"tenant": "a"}, None),
        ({"env": "test"}, {}, Reason.INSTANCE_LABELS),
        ({}, {"tenant": "b"}, Reason.INSTANCE_LABELS),
        ({"env": "prod"}, {"tenant": "b"}, Reason.INSTANCE_LABELS),
        ({"env": "prod", "region": "eu"}, {}, Reason.INSTANCE_LABELS),
        ({"env": "PROD"}, {}, Reason.INSTANCE_LABELS),
        ({"prod": "env"}, {}, Reason.INSTANCE_LABELS),
    ],
)
def test_every_label_of_binding_and_variable_must_be_the_instances_own(
    table: Table, binding: dict[str, str], variable: dict[str, str], refusal: Reason | None
) -> None:
    table.estate.variable(VARIABLE, **variable)
    table.estate.binding_to("hospital-a", EnvironmentOrigin(variable=VARIABLE, labels=binding))
    decided = table.ask()
    assert (decided.reason if isinstance(decided, Denied) else None) is refusal


def test_another_tenants_variable_is_not_available_and_looks_like_none(table: Table) -> None:
    table.estate.variable("TENANT_B_DB_URL", tenant="b")
    table.estate.binding_to("hospital-a", EnvironmentOrigin(variable="TENANT_B_DB_URL"))
    theirs = table.ask()
    table.estate.binding_to("hospital-a", EnvironmentOrigin(variable="NOBODYS"))
    nobodys = table.ask()
    assert isinstance(theirs, Denied)
    assert isinstance(nobodys, Denied)
    assert (theirs.error.kind, theirs.error.detail) == (nobodys.error.kind, nobodys.error.detail)


def mapped(estate: Estate) -> None:
    """Two fields: one from the environment of instances labelled prod, one from the vault."""
    estate.server("two", patients_db("DB_URL", "API_KEY"))
    estate.variable(VARIABLE)
    origin = EnvironmentOrigin(variable=VARIABLE, labels={"env": "prod"})
    estate.binding_to("hospital-a", origin, server="two")
    estate.binding("hospital-a", "hospital-a/db-dsn", server="two", field="API_KEY")


def labelled(bench: Bench, name: str, **labels: str) -> FakeGateway:
    """Another gateway, enrolled with these labels."""
    identity = bench.estate.instance(name, labels=labels)
    return FakeGateway(identity, bench.gateway.audience, bench.gateway.resolver_key, bench.gateway.app)


async def test_the_answer_names_the_variable_and_the_record_comes_first(bench: Bench) -> None:
    mapped(bench.estate)
    bench.vault.put("hospital-a/db-dsn", "from the vault")
    prod = labelled(bench, "gateway-prod", env="prod")
    bench.learn()
    answer = await prod.resolve(bench.token(), "two")
    here, stored = answer.fields
    assert (here.name, here.value, here.variable) == ("DB_URL", None, VARIABLE)
    assert (here.lease.reference_id, here.lease.version) == (f"variable/{VARIABLE}", IN_PLACE)
    assert stored.value is not None
    assert stored.value.matches(b"from the vault")
    assert bench.log.phases() == [Phase.AUTHORISED, Phase.RELEASED]
    authorised, released = bench.log.entries
    for entry, version in ((authorised, None), (released, None)):
        (first, _) = entry.items
        assert (first.reference_name, first.source_id, first.version) == (VARIABLE, "instance/gateway-prod", version)
    assert f"variable/{VARIABLE}" in authorised.items[0].rests_on


async def test_without_a_record_no_instance_is_told_which_variable_to_use(bench: Bench) -> None:
    mapped(bench.estate)
    bench.vault.put("hospital-a/db-dsn", "from the vault")
    prod = labelled(bench, "gateway-prod", env="prod")
    bench.learn()
    bench.log.down = True
    reply = await prod.ask(bench.token(), "two")
    assert reply.status == 503
    assert VARIABLE.encode() not in reply.body
    assert all(value.secret.wiped for value in bench.vault.handed_out)


@pytest.mark.parametrize("labels", [{}, {"env": "test"}, {"environment": "prod"}], ids=str)
async def test_an_instance_without_the_label_is_refused_and_that_is_on_record(
    bench: Bench, labels: dict[str, str]
) -> None:
    mapped(bench.estate)
    other = labelled(bench, "gateway-other", **labels)
    bench.learn()
    reply = await other.ask(bench.token(), "two")
    assert reply.status == 404
    assert bench.reasons() == [(Phase.REFUSED, Reason.INSTANCE_LABELS)]


@pytest.mark.parametrize(
    "claim", [{"labels": {"env": "prod"}}, {"env": "prod"}, {"instance": "instance/gateway-prod"}], ids=str
)
async def test_a_label_claimed_in_a_request_is_no_label(bench: Bench, claim: dict[str, Any]) -> None:
    mapped(bench.estate)
    other = labelled(bench, "gateway-other", env="test")
    bench.learn()
    assert (await other.ask(bench.token(), "two", **claim)).status == 400


async def test_a_change_of_labels_between_the_two_decisions_stops_the_release(bench: Bench) -> None:
    mapped(bench.estate)
    bench.vault.put("hospital-a/db-dsn", "from the vault")
    bench.vault.by_hand = True
    prod = labelled(bench, "gateway-prod", env="prod")
    bench.learn()
    asked = prod.question(bench.token(), "two")
    asking = asyncio.create_task(prod.send(asked))
    await until(lambda: bench.vault.pending)
    bench.estate.end(f"variable/{VARIABLE}")
    bench.learn()
    bench.vault.pending[0].answer("from the vault", "1")
    assert (await asking).status == 404
    assert bench.reasons()[-1] == (Phase.ABANDONED, Reason.VARIABLE_NOT_ALLOWED)
    assert all(value.secret.wiped for value in bench.vault.handed_out)


@pytest.mark.parametrize("origin", LOCAL.values(), ids=LOCAL)
async def test_what_cannot_be_brought_is_refused_on_record(bench: Bench, origin: Origin) -> None:
    bench.estate.binding_to("hospital-a", origin)
    bench.learn()
    assert (await bench.gateway.ask(bench.token())).status == 404
    assert bench.reasons() == [(Phase.REFUSED, Reason.ORIGIN_UNSUPPORTED)]
