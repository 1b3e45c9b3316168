"""Where a binding may let a value come from: one origin, said clearly; and names that no configuration may read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.policy.commands import assignments, choices
from services.policy.commands.exposure import exposed
from services.policy.domain.drafts import BindingDraft, ChoiceDraft, VariableDraft
from services.policy.domain.kinds import links, natural_key, variable_link
from services.policy.domain.origins import origin_of
from shared.errors import BadRequest, Conflict, NotAvailable
from shared.events.policy import (
    BindingRecord,
    EnvironmentOrigin,
    LocalOwner,
    LocalValueOrigin,
    Origin,
    ReferenceOrigin,
    VariableRecord,
)
from tests.thoroughness import examples
from tests.unit.policy.front import Front
from tests.unit.policy.stories import World, reference, refused

WHERE = {"profile": "hospital-a", "server": "patients-db", "field": "DB_URL"}
VARIABLE = {"variable": "HOSPITAL_DB_URL", "labels": {"env": "prod"}}
ORIGINS: dict[str, tuple[dict[str, Any], str]] = {
    "reference": ({"reference": "hospital-a/db-url"}, "reference hospital-a/db-url"),
    "subject": ({"local": "subject"}, "local value of the subject"),
    "profile": ({"local": "profile"}, "local value of the profile"),
    "environment": ({"environment": VARIABLE}, "variable HOSPITAL_DB_URL of the instance with env=prod"),
    "anywhere": ({"environment": {"variable": "DB_URL_HERE"}}, "variable DB_URL_HERE of the instance"),
}


def draft(**origin: Any) -> BindingDraft:
    return BindingDraft(**WHERE, **origin)


async def allow(world: World, *names: str, **labels: str) -> None:
    """Let bindings name these variables."""
    for name in names or ("HOSPITAL_DB_URL",):
        await world.do(assignments.create_variable, VariableDraft(name=name, labels=labels))


@pytest.fixture
async def world() -> World:
    made = World()
    await made.hospital()
    await allow(made)
    return made


@pytest.fixture
async def front() -> Front:
    made = Front()
    await made.world.hospital()
    await allow(made.world, "HOSPITAL_DB_URL", "DB_URL_HERE")
    await made.world.delete(BindingRecord, (await made.world.binding()).id)
    return made


@pytest.mark.parametrize(("origin", "words"), ORIGINS.values(), ids=ORIGINS)
async def test_a_binding_is_made_and_shown_with_where_its_value_comes_from(
    front: Front, origin: dict[str, Any], words: str
) -> None:
    made = await front.create("bindings", **WHERE, **origin)
    assert made["entity"]["comes_from"] == words
    assert (await front.ask("GET", f"/v1/{_path(made)}"))["comes_from"] == words


@pytest.mark.parametrize("origin", [origin for origin, _ in ORIGINS.values()], ids=ORIGINS)
async def test_the_same_origin_again_is_the_same_binding_and_another_one_is_a_conflict(
    front: Front, origin: dict[str, Any]
) -> None:
    made = await front.create("bindings", **WHERE, **origin)
    again = await front.ask("POST", "/v1/bindings", WHERE | origin)
    assert again["entity_id"] == made["entity_id"]
    other = {"local": "profile"} if origin == {"local": "subject"} else {"local": "subject"}
    await front.ask("POST", "/v1/bindings", WHERE | other, expect=409)


def _path(made: Any) -> str:
    return f"bindings/{made['entity_id']}"


async def test_a_binding_moves_from_any_origin_to_any_other_and_what_rested_on_it_ends(front: Front) -> None:
    made = await front.create("bindings", **WHERE, reference="hospital-a/db-url")
    for origin, words in [*list(ORIGINS.values())[1:], ORIGINS["reference"]]:
        moved = await front.ask("PUT", f"/v1/{_path(made)}", WHERE | origin)
        assert (moved["entity"]["comes_from"], moved["ended"]) == (words, [made["entity_id"]])


@pytest.mark.parametrize(
    "origins",
    [
        {},
        {"reference": "hospital-a/db-url", "local": "subject"},
        {"reference": "hospital-a/db-url", "environment": VARIABLE},
        {"local": "profile", "environment": VARIABLE},
    ],
    ids=lambda one: "+".join(one) or "none",
)
async def test_none_and_several_origins_are_refused_with_the_way_out(front: Front, origins: dict[str, Any]) -> None:
    for method, path in (("POST", "/v1/bindings"), ("PUT", "/v1/bindings/binding/" + "0" * 32)):
        problem = await front.ask(method, path, WHERE | origins, expect=400)
        assert "exactly one of `reference`, `local` and `environment`" in problem["detail"]


@pytest.mark.parametrize(
    "variable",
    ["PATH", "path", "KEYFOB_GATEWAY_IDENTITY_DIR", "Keyfob_x", "LD_PRELOAD", "HTTPS_PROXY", "PYTHONPATH", "GIT_DIR"],
)
async def test_no_binding_reads_what_belongs_to_the_gateways_own_process(world: World, variable: str) -> None:
    wanted = draft(environment={"variable": variable})
    for error in (
        await refused(world, assignments.create_binding, wanted, None),
        await refused(world, assignments.create_variable, VariableDraft(name=variable)),
    ):
        assert isinstance(error, BadRequest)
        assert variable in error.detail


@pytest.mark.parametrize("variable", ["", "1A", "A B", "A=B", "A\n", "Ä", "A" * 129, "a.b", "$A", "A\x00"])
def test_a_variables_name_is_one(variable: str) -> None:
    with pytest.raises(ValidationError):
        draft(environment={"variable": variable})


async def test_labels_that_nobody_can_compare_are_refused(world: World) -> None:
    wanted = draft(environment={"variable": "HOSPITAL", "labels": {"en v": "prod"}})
    assert isinstance(await refused(world, assignments.create_binding, wanted, None), BadRequest)


@settings(max_examples=examples(200))
@given(text=st.text(max_size=12) | st.sampled_from(LocalOwner))
def test_a_local_value_has_one_of_two_owners(text: str) -> None:
    try:
        made = draft(local=text)
    except ValidationError:
        assert text not in {"subject", "profile"}
    else:
        assert origin_of(made, None) == LocalValueOrigin(owner=LocalOwner(text))


def test_a_reference_that_is_not_there_is_no_origin() -> None:
    with pytest.raises(BadRequest):
        origin_of(draft(reference="hospital-a/none"), None)
    known = reference()
    assert origin_of(draft(reference=known.name), known) == ReferenceOrigin(reference_id=known.id)


def test_a_kind_that_this_version_does_not_know_makes_the_record_unreadable() -> None:
    """A reader then counts the binding as absent, and gives nothing."""
    for origin in ({"kind": "oauth"}, {"kind": "environment"}, {"reference_id": "reference/1"}, {}):
        with pytest.raises(ValidationError):
            TypeAdapter(Origin).validate_python(origin)


def test_bindings_of_one_field_are_the_same_wherever_the_value_comes_from() -> None:
    """So that two sources of one field can't stand side by side, and nobody has to guess which one counts."""
    here = {"id": "binding/1", "seq": 1, "revision": 1, "profile_id": "profile/1", "server_id": "server/1"}
    made = [
        BindingRecord(**here, field="DB_URL", origin=origin, definition_digest="d")
        for origin in (
            ReferenceOrigin(reference_id="reference/1"),
            LocalValueOrigin(owner=LocalOwner.SUBJECT),
            EnvironmentOrigin(variable="A"),
        )
    ]
    assert len({natural_key(one) for one in made}) == 1
    assert [links(one) - {"profile/1", "server/1"} for one in made] == [
        {"reference/1"},
        frozenset(),
        {variable_link("A")},
    ]


async def test_a_subject_can_choose_only_where_the_administrator_bound_a_reference(world: World) -> None:
    person = choices.Person(idp_id=(await world.idp()).id, subject="ana", groups=frozenset({"agents-a"}))
    wanted = ChoiceDraft(server="patients-db", field="DB_URL", reference="hospital-a/db-url")
    async with world.ledger.read() as reading:
        assert await choices.option(reading, world.catalog, person, wanted)
    binding = await world.binding()
    await world.do(assignments.update_binding, binding.id, draft(local="subject"), None)
    async with world.ledger.read() as reading:
        with pytest.raises(NotAvailable):
            await choices.option(reading, world.catalog, person, wanted)


async def test_a_field_that_comes_from_elsewhere_is_no_way_to_a_reference(world: World) -> None:
    grant, binding = await world.grant(), await world.binding()
    await world.do(assignments.update_binding, binding.id, draft(environment=VARIABLE), None)
    async with world.ledger.read() as reading:
        (way,) = await exposed(reading, grant.reference_id)
    assert (way.bound, way.choosable) == ((), ())


async def test_a_variable_is_bound_only_once_it_is_allowed(world: World) -> None:
    wanted = draft(environment={"variable": "OTHER_DB_URL"})
    error = await refused(world, assignments.update_binding, (await world.binding()).id, wanted, None)
    assert isinstance(error, Conflict)
    assert "keyfob variable allow" in error.detail
    await allow(world, "OTHER_DB_URL")
    moved = await world.do(assignments.update_binding, (await world.binding()).id, wanted, None)
    assert moved.record.origin == EnvironmentOrigin(variable="OTHER_DB_URL")


async def test_labels_that_contradict_the_list_are_refused_since_no_instance_has_both(world: World) -> None:
    await allow(world, "PROD_DB_URL", env="prod")
    binding = await world.binding()

    def wanted(env: str) -> BindingDraft:
        return draft(environment={"variable": "PROD_DB_URL", "labels": {"env": env, "region": "eu"}})

    error = await refused(world, assignments.update_binding, binding.id, wanted("test"), None)
    assert isinstance(error, BadRequest)
    assert await world.do(assignments.update_binding, binding.id, wanted("prod"), None)


async def test_allowing_twice_is_once_and_with_other_labels_a_conflict(world: World) -> None:
    events = len(world.ledger.events)
    await allow(world)
    assert len(world.ledger.events) == events
    other = VariableDraft(name="HOSPITAL_DB_URL", labels={"env": "prod"})
    assert isinstance(await refused(world, assignments.create_variable, other), Conflict)


async def test_taking_a_variable_back_ends_what_was_given_from_it_and_keeps_the_binding(world: World) -> None:
    """The binding then gives nothing; allowed again, it stands as it was made."""
    await world.do(assignments.update_binding, (await world.binding()).id, draft(environment=VARIABLE), None)
    receipt = await world.delete(VariableRecord, "HOSPITAL_DB_URL")
    assert receipt.ended == (receipt.entity_id,)
    assert any(isinstance(one, BindingRecord) for one in world.living())


async def test_labels_of_a_variable_can_be_compared(world: World) -> None:
    wanted = VariableDraft(name="OTHER", labels={"en v": "prod"})
    assert isinstance(await refused(world, assignments.create_variable, wanted), BadRequest)
