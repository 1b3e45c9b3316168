"""What an administrator is told is what the decision does: for every link that is missing, and for every rule."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI

from services.resolver.domain.chain import Grounds
from services.resolver.domain.decision import Allowed, Denied, Person, Reason, Wish
from services.resolver.domain.explanation import WORDS, Explanation, explain
from services.resolver.domain.plans import ContextRule, FieldRule, Item
from services.resolver.explaining import Explainer, routes
from shared.administration import AdminGuard
from shared.config import AdminSettings
from shared.errors import TokenInvalid
from shared.events.policy import ChoiceRecord, EnvironmentOrigin, InstanceState, LocalOwner, LocalValueOrigin
from shared.identity.tokens import Subject
from shared.problems import install_problem_handlers
from tests.fakes.asgi import Reply, call
from tests.fakes.estate import hospitals, patients_db
from tests.fakes.resolving import FakeKnowledge
from tests.unit.resolver.table import BOTH, GRANT_A, INSTANCE, NOW, STAFF_A, Table


@pytest.fixture
def table() -> Table:
    estate = hospitals()
    estate.instance(labels={"env": "prod"})
    return Table(estate)


def explained(table: Table, person: Person = STAFF_A, server: str = "patients-db", **wish: Any) -> Explanation:
    snapshot = table.snapshot()
    instance = snapshot.policy.instance(INSTANCE)
    assert instance is not None
    said = Wish(server=server, context=wish.get("context"), choices=wish.get("choices", {}))
    return explain(snapshot, person, instance, said, now=NOW, trusts=table.trust())


def agrees(table: Table, person: Person = STAFF_A, server: str = "patients-db", **wish: Any) -> Explanation:
    """An explanation, checked against the decision on the same question."""
    found = explained(table, person, server, **wish)
    decided = table.ask(person, server, **wish)
    match decided:
        case Denied(reason):
            assert found.refusal is not None
            assert found.refusal.reason is reason
        case Allowed(plan):
            assert found.refusal is None
            assert isinstance(found.grounds, Grounds)
            assert found.grounds.profile.id == plan.profile.id
            items = [one.outcome for one in found.fields if isinstance(one.outcome, Item)]
            assert [item.grounds for item in items] == [item.grounds for item in plan.items]
    return found


GONE = [
    "idp/okta",
    "server/patients-db",
    "mapping/hospital-a-staff-hospital-a",
    "profile/hospital-a",
    "binding/hospital-a-patients-db-DB_URL",
    "reference/hospital-a/db-dsn",
    "source/vault",
    GRANT_A,
]


@pytest.mark.parametrize("gone", ["", *GONE])
def test_an_explanation_says_what_the_decision_does(table: Table, gone: str) -> None:
    if gone:
        table.estate.end(gone)
    assert (agrees(table).refusal is None) is (gone == "")


@pytest.mark.parametrize(
    "wish",
    [
        {"context": "hospital-a"},
        {"context": "hospital-b"},
        {"context": "nobody"},
        {"choices": {"DB_URL": "hospital-a/db-dsn"}},
        {"choices": {"DB_URL": "hospital-b/db-dsn"}},
        {"choices": {"OTHER": "hospital-a/db-dsn"}},
    ],
    ids=str,
)
def test_contexts_and_picks_are_explained_as_they_are_decided(table: Table, wish: dict[str, Any]) -> None:
    for person in (STAFF_A, BOTH):
        agrees(table, person, **wish)


def test_a_banned_instance_is_explained_as_such(table: Table) -> None:
    table.estate.again(INSTANCE, state=InstanceState.BANNED)
    found = agrees(table)
    assert found.refusal is not None
    assert found.refusal.reason is Reason.INSTANCE_INACTIVE


def test_the_rule_that_chose_the_profile_is_named(table: Table) -> None:
    def rule(person: Person, **wish: Any) -> ContextRule:
        grounds = agrees(table, person, **wish).grounds
        assert isinstance(grounds, Grounds)
        return grounds.chosen.rule

    assert rule(STAFF_A) is ContextRule.ONLY
    assert rule(BOTH, context="hospital-b") is ContextRule.NAMED
    own_default(table)
    assert rule(BOTH) is ContextRule.DEFAULT


def own_default(table: Table) -> None:
    """Ana's own choice of hospital B."""
    table.estate.write(
        ChoiceRecord,
        "choice/1",
        idp_id="idp/okta",
        subject="ana",
        server_id="server/patients-db",
        field="DB_URL",
        profile_id="profile/hospital-b",
        reference_id="reference/hospital-b/db-dsn",
    )


def test_the_rule_that_chose_the_source_is_named(table: Table) -> None:
    def rule(**wish: Any) -> FieldRule:
        (one,) = agrees(table, BOTH, context="hospital-b", **wish).fields
        assert isinstance(one.outcome, Item)
        return one.outcome.rule

    assert rule() is FieldRule.BINDING
    own_default(table)
    assert rule() is FieldRule.DEFAULT
    assert rule(choices={"DB_URL": "hospital-b/db-dsn"}) is FieldRule.PICKED


def test_every_field_is_explained_also_behind_one_that_is_refused(table: Table) -> None:
    table.estate.server("three", patients_db("A", "B", "C"))
    table.estate.variable("HERE")
    table.estate.binding_to("hospital-a", LocalValueOrigin(owner=LocalOwner.SUBJECT), server="three", field="B")
    table.estate.binding_to("hospital-a", EnvironmentOrigin(variable="HERE"), server="three", field="C")
    none, local, here = agrees(table, server="three").fields
    assert isinstance(none.outcome, Denied)
    assert (none.binding, none.outcome.reason) == (None, Reason.NOT_BOUND)
    assert local.binding is not None
    assert isinstance(local.outcome, Item)
    assert local.outcome.place.name == "local value of the subject: three/B"
    assert isinstance(here.outcome, Item)


def test_every_reason_has_words() -> None:
    assert WORDS.keys() == set(Reason)


GROUPS = {"auditor": frozenset({"keyfob-auditors"}), "nobody": frozenset({"hospital-a-staff"})}


class Verifier:
    async def verify(self, token: str) -> Subject:
        if token not in GROUPS:
            raise TokenInvalid
        return Subject("idp/administrators", token, GROUPS[token], 2e9, b"digest")


@dataclass
class Office:
    """The route on a table."""

    table: Table
    knowledge: FakeKnowledge
    app: FastAPI

    async def send(self, *, token: str = "auditor", **question: Any) -> Reply:
        self.knowledge.learn(self.table.estate)
        body = json.dumps({"subject": "ana", "server": "patients-db", "groups": ["hospital-a-staff"]} | question)
        headers = [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
        return await call(self.app, "POST", "/v1/explain", headers=headers, body=body.encode())

    async def ask(self, **question: Any) -> dict[str, Any]:
        reply = await self.send(**question)
        assert reply.status == 200, reply.body
        answer: dict[str, Any] = json.loads(reply.body)
        return answer


@pytest.fixture
def office(table: Table) -> Office:
    knowledge = FakeKnowledge(table.trust())
    app = FastAPI()
    install_problem_handlers(app)
    guard = AdminGuard(Verifier(), AdminSettings())  # type: ignore[arg-type]
    app.include_router(routes(Explainer(knowledge, table.trust(), lambda: NOW), guard))
    return Office(table, knowledge, app)


async def test_the_answer_names_profile_binding_rule_and_source(office: Office) -> None:
    answer = await office.ask()
    assert answer["idp"] == {"id": "idp/okta", "name": "okta"}
    assert answer["policy_seq"] == office.knowledge.snapshot().floor.policy
    (one,) = answer["instances"]
    assert (one["allowed"], one["refused"], one["labels"]) == (True, None, {"env": "prod"})
    assert (one["profile"]["name"], one["profile_rule"]) == ("hospital-a", "only-profile-that-binds")
    assert (one["group"], one["mapping_id"]) == ("hospital-a-staff", "mapping/hospital-a-staff-hospital-a")
    (field,) = one["fields"]
    assert (field["field"], field["origin"], field["rule"]) == ("DB_URL", "reference", "binding")
    assert field["binding_id"] == "binding/hospital-a-patients-db-DB_URL"
    assert field["source"] == {"id": "reference/hospital-a/db-dsn", "name": "hospital-a/db-dsn"}
    assert GRANT_A in field["rests_on"]


async def test_a_refusal_tells_the_reason_and_what_the_subject_learns_of_it(office: Office) -> None:
    (one,) = (await office.ask(context="hospital-b"))["instances"]
    assert (one["allowed"], one["fields"], one["profile"]) == (False, [], None)
    assert (one["refused"]["reason"], one["refused"]["kind"]) == ("context-not-yours", "not-available")
    (one,) = (await office.ask(groups=["hospital-a-staff", "hospital-b-staff"]))["instances"]
    assert one["refused"]["choices"] == ["hospital-a", "hospital-b"]


async def test_each_instance_that_may_run_the_server_is_explained_by_its_own_labels(office: Office) -> None:
    estate = office.table.estate
    estate.instance("gateway-test", labels={"env": "test"})
    estate.instance("gateway-elsewhere", allowed_servers=("server/other",))
    estate.instance("gateway-banned", state=InstanceState.BANNED)
    estate.variable("HERE")
    estate.binding_to("hospital-a", EnvironmentOrigin(variable="HERE", labels={"env": "prod"}))
    told = {one["instance"]["name"]: one for one in (await office.ask())["instances"]}
    assert {name: one["allowed"] for name, one in told.items()} == {"gateway-1": True, "gateway-test": False}
    assert told["gateway-test"]["fields"][0]["refused"]["reason"] == "instance-labels"
    (named,) = (await office.ask(instance="gateway-banned"))["instances"]
    assert named["refused"]["reason"] == "instance-inactive"


async def test_a_server_that_is_not_there_is_said_to_be(office: Office) -> None:
    (one,) = (await office.ask(server="nothing"))["instances"]
    assert one["refused"]["reason"] == "server-unknown"


async def test_several_identity_providers_must_be_told_apart(office: Office) -> None:
    office.table.estate.idp("entra", issuer="https://entra.example")
    assert (await office.send()).status == 400
    assert (await office.send(idp="absent")).status == 400
    (one,) = (await office.ask(idp="entra"))["instances"]
    assert one["refused"]["reason"] == "no-profile"
    assert (await office.ask(idp="okta"))["instances"][0]["allowed"]


@pytest.mark.parametrize(
    "question",
    [{"instance": "absent"}, {"server": ""}, {"subject": ""}, {"labels": {"env": "prod"}}, {"groups": "x"}],
    ids=str,
)
async def test_what_cannot_be_asked_is_refused(office: Office, question: dict[str, Any]) -> None:
    assert (await office.send(**question)).status in {400, 422}


async def test_only_whoever_has_a_role_is_told_anything(office: Office) -> None:
    assert (await office.send(token="nobody")).status == 403
    assert (await office.send(token="stranger")).status == 401


async def test_what_can_not_be_proved_to_be_current_is_not_explained(office: Office) -> None:
    office.knowledge.staleness = "policy-tick-old"
    assert (await office.send()).status == 503
