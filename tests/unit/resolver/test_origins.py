"""What the resolver does with each origin of a binding; what it can't bring it refuses, and records that it did."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from services.resolver.api import ResolveRoute
from services.resolver.domain.decision import Denied, Reason
from services.resolver.domain.local_values import Owner, Slot
from services.resolver.domain.plans import FieldRule, InstanceVariable, Item, KeptValue
from services.resolver.sources.port import ReadValue
from shared.crypto.secret import SecretBytes
from shared.crypto.signing import SigningKey
from shared.delivery.messages import IN_PLACE
from shared.events.access import Phase
from shared.events.policy import EnvironmentOrigin, LocalOwner, LocalValueOrigin, Origin, VariableRecord
from tests.fakes.asgi import nothing_there
from tests.fakes.estate import Estate, hospitals, patients_db
from tests.fakes.gateway import FakeGateway, values
from tests.fakes.resolving import AUDIENCE, Bench
from tests.unit.resolver.table import STAFF_A, Table
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


def kept(table: Table, owner: LocalOwner, **asked: Any) -> Item:
    table.estate.binding_to("hospital-a", LocalValueOrigin(owner=owner))
    (item,) = table.plan(**asked).items
    return item


def test_a_value_of_ones_own_is_looked_for_under_who_asks_and_one_of_a_profile_under_the_profile(table: Table) -> None:
    mine, ours = kept(table, LocalOwner.SUBJECT), kept(table, LocalOwner.PROFILE)
    assert isinstance(mine.place, KeptValue)
    assert isinstance(ours.place, KeptValue)
    assert mine.place.slot == Slot(Owner(LocalOwner.SUBJECT, "ana", "idp/okta"), "server/patients-db", "DB_URL")
    assert ours.place.slot == Slot(Owner(LocalOwner.PROFILE, "profile/hospital-a"), "server/patients-db", "DB_URL")
    assert mine.place.id != ours.place.id


def test_a_kept_value_needs_no_grant_and_its_lease_rests_on_the_value_itself(table: Table) -> None:
    for gone in ("reference/hospital-a/db-dsn", "source/vault", "grant/hospital-a-hospital-a/db-dsn"):
        table.estate.end(gone)
    item = kept(table, LocalOwner.SUBJECT)
    assert {item.place.id, "binding/hospital-a-patients-db-DB_URL", "profile/hospital-a"} <= set(item.rests_on)
    assert (item.place.source_id, item.ends_at) == ("keyfob/local-values", None)
    assert item.place.name == "local value of the subject: patients-db/DB_URL"


def test_somebody_else_has_another_slot(table: Table) -> None:
    mine = kept(table, LocalOwner.SUBJECT)
    theirs = kept(table, LocalOwner.SUBJECT, person=replace(STAFF_A, subject="bob"))
    namesake = Slot(Owner(LocalOwner.SUBJECT, "ana", "idp/other"), "server/patients-db", "DB_URL")
    assert len({mine.place.id, theirs.place.id, namesake.id}) == 3


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
async def test_where_nothing_is_kept_a_local_value_is_refused_on_record(bench: Bench, origin: Origin) -> None:
    bench.estate.binding_to("hospital-a", origin)
    bench.learn()
    reply = await bench.gateway.ask(bench.token())
    assert reply.status == 503
    assert b"Local values can't be had now" in reply.body
    assert bench.reasons()[-1] == (Phase.ABANDONED, "local-value-unavailable")


@dataclass
class FakeKept:
    """`LocalReader` with one value for everybody."""

    handed_out: list[ReadValue] = field(default_factory=list)
    uses: list[tuple[str, str]] = field(default_factory=list)

    async def read(self, slot: Slot) -> ReadValue:
        self.handed_out.append(ReadValue(SecretBytes(b"kept"), "7"))
        return self.handed_out[-1]

    def used(self, slot: Slot, version: str) -> None:
        self.uses.append((slot.id, version))


async def test_a_kept_value_is_released_once_it_is_on_record_and_wiped(bench: Bench) -> None:
    local = FakeKept()
    bench.resolver = replace(bench.resolver, local=local)
    bench.gateway.app = ResolveRoute(bench.resolver.resolve, AUDIENCE, nothing_there)
    bench.estate.binding_to("hospital-a", LocalValueOrigin(owner=LocalOwner.SUBJECT))
    bench.learn()
    answer = await bench.gateway.resolve(bench.token())
    assert values(answer) == {"DB_URL": b"kept"}
    assert [phase for phase, _ in bench.reasons()] == [Phase.AUTHORISED, Phase.RELEASED]
    (item,) = bench.log.entries[-1].items
    assert (item.reference_id, item.version, item.source_id) == (*local.uses[0], "keyfob/local-values")
    assert item.version == "7"
    assert all(value.secret.wiped for value in local.handed_out)


async def test_without_a_record_a_kept_value_is_wiped_and_not_counted_as_used(bench: Bench) -> None:
    local = FakeKept()
    bench.resolver = replace(bench.resolver, local=local)
    bench.gateway.app = ResolveRoute(bench.resolver.resolve, AUDIENCE, nothing_there)
    bench.estate.binding_to("hospital-a", LocalValueOrigin(owner=LocalOwner.SUBJECT))
    bench.learn()
    bench.log.down = True
    assert (await bench.gateway.ask(bench.token())).status == 503
    assert local.uses == []
    assert all(value.secret.wiped for value in local.handed_out)
