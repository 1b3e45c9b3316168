"""Choices: only from one's own, by name, and never a hint of anything else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.policy.commands import choices
from services.policy.commands.choices import Assigned, Person
from services.policy.domain.drafts import ChoiceDraft
from shared.errors import ChoiceNeeded, NotAvailable
from shared.events.policy import BindingRecord, GrantRecord, MappingRecord
from tests.unit.policy.stories import NOON, World, refused

READ_ONLY = "hospital-a/read-only"


@pytest.fixture
async def world() -> World:
    made = World()
    await made.hospital()
    await made.grant(READ_ONLY)
    await made.profile("hospital-b")
    await made.mapping("agents-b", "hospital-b")
    await made.grant("hospital-b/db-url", "hospital-b")
    await made.binding("hospital-b/db-url", "hospital-b")
    return made


async def person(world: World, *groups: str, subject: str = "agent") -> Person:
    return Person(idp_id=(await world.idp()).id, subject=subject, groups=frozenset(groups))


def draft(reference: str = READ_ONLY, **other: str) -> ChoiceDraft:
    return ChoiceDraft.model_validate({"server": "patients-db", "field": "DB_URL", "reference": reference, **other})


async def test_a_subject_is_shown_the_names_of_its_own_profiles(world: World) -> None:
    agent = await person(world, "agents-a", "nothing")
    async with world.ledger.read() as reading:
        found = await choices.assigned(reading, world.catalog, agent)
    assert found == (Assigned("hospital-a/db-url", ("hospital-a",)), Assigned(READ_ONLY, ("hospital-a",)))


async def test_groups_count_only_with_their_own_identity_provider(world: World) -> None:
    foreign = Person(idp_id="idp/other", subject="agent", groups=frozenset({"agents-a"}))
    async with world.ledger.read() as reading:
        assert await choices.own_profiles(reading, foreign) == ()


async def test_a_reference_of_several_contexts_is_shown_once_with_all(world: World) -> None:
    await world.grant(READ_ONLY, "hospital-b")
    agent = await person(world, "agents-a", "agents-b")
    async with world.ledger.read() as reading:
        found = await choices.assigned(reading, world.catalog, agent)
    assert Assigned(READ_ONLY, ("hospital-a", "hospital-b")) in found


@pytest.mark.parametrize(
    "wanted",
    [
        draft("hospital-b/db-url"),
        draft("no/such"),
        draft(context="hospital-b"),
        draft(context="nobody"),
        draft(server="none"),
        draft(field="OTHER"),
    ],
    ids=["another's", "unknown", "another's context", "unknown context", "unknown server", "unknown field"],
)
async def test_what_is_not_the_subjects_is_refused_with_the_same_words(world: World, wanted: ChoiceDraft) -> None:
    agent = await person(world, "agents-a")
    error = await refused(world, choices.choose, world.catalog, agent, wanted)
    assert isinstance(error, NotAvailable)
    assert error.detail == NotAvailable().detail


async def test_a_grant_that_is_not_open_allows_no_choice(world: World) -> None:
    await world.grant("hospital-a/later", starts_at=NOON + timedelta(hours=1))
    agent = await person(world, "agents-a")
    assert isinstance(
        await refused(world, choices.choose, world.catalog, agent, draft("hospital-a/later")), NotAvailable
    )


async def test_a_field_that_the_profile_has_not_bound_is_no_choice(world: World) -> None:
    await world.delete(BindingRecord, (await world.binding()).id)
    agent = await person(world, "agents-a")
    assert isinstance(await refused(world, choices.choose, world.catalog, agent, draft()), NotAvailable)


async def test_several_contexts_are_asked_for_by_the_names_of_the_subjects_own(world: World) -> None:
    await world.grant(READ_ONLY, "hospital-b")
    await world.profile("hospital-c")
    agent = await person(world, "agents-a", "agents-b")
    error = await refused(world, choices.choose, world.catalog, agent, draft())
    assert isinstance(error, ChoiceNeeded)
    assert error.choices == ("hospital-a", "hospital-b")
    made = await world.do(choices.choose, world.catalog, agent, draft(context="hospital-b"))
    assert made.record.profile_id == (await world.profile("hospital-b")).id


async def test_the_last_choice_counts_and_is_one_entity(world: World) -> None:
    agent = await person(world, "agents-a")
    first = (await world.do(choices.choose, world.catalog, agent, draft())).record
    second = (await world.do(choices.choose, world.catalog, agent, draft("hospital-a/db-url"))).record
    assert (second.id, second.revision) == (first.id, 2)
    assert second.reference_id != first.reference_id
    assert second.subject == "agent"


async def test_a_choice_falls_with_the_last_grant_that_allowed_it(world: World) -> None:
    agent = await person(world, "agents-a")
    choice = (await world.do(choices.choose, world.catalog, agent, draft())).record
    second = await world.grant(READ_ONLY, server="patients-db")
    first = await world.grant(READ_ONLY)
    assert choice.id not in (await world.delete(GrantRecord, first.id)).ended
    assert choice.id in (await world.delete(GrantRecord, second.id)).ended


async def test_nobody_sees_or_takes_back_anothers_choice(world: World) -> None:
    agent, other = await person(world, "agents-a"), await person(world, "agents-a", subject="other")
    choice = (await world.do(choices.choose, world.catalog, agent, draft())).record
    async with world.ledger.read() as reading:
        assert (await choices.chosen(reading, agent)).items == (choice,)
        assert (await choices.chosen(reading, other)).items == ()
    assert isinstance(await refused(world, choices.forget, other, choice.id), NotAvailable)
    assert (await world.do(choices.forget, agent, choice.id)).ended == (choice.id,)


async def test_whoever_leaves_a_group_has_no_names_left(world: World) -> None:
    agent = await person(world, "agents-a")
    await world.delete(MappingRecord, (await world.mapping()).id)
    async with world.ledger.read() as reading:
        assert await choices.assigned(reading, world.catalog, agent) == ()
