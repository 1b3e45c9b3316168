"""Who could use a reference: exact, and never fewer than could."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.policy.commands import foundations, instances
from services.policy.commands.exposure import exposed
from services.policy.domain.drafts import EnrolmentDraft, ServerChange
from services.policy.domain.exposures import Way
from shared.events.policy import InstanceState
from tests.unit.policy.stories import NOON, STDIO, World
from tests.unit.policy.test_enrolments import enrol, request


@pytest.fixture
async def world() -> World:
    made = World()
    await made.hospital()
    for name, allowed, labels in (
        ("any", ["*"], {}),
        ("this", ["patients-db"], {"env": "prod"}),
        ("none", [], {"env": "prod"}),
    ):
        draft = EnrolmentDraft.model_validate({"name": name, "allowed_servers": allowed, "labels": labels})
        promised = await made.do(instances.promise, draft)
        await made.do(enrol, request(promised.token, name))
    return made


async def ways_to(world: World, name: str = "hospital-a/db-url") -> tuple[Way, ...]:
    reference = await world.catalog.find(name)
    assert reference is not None
    async with world.ledger.read() as reading:
        return await exposed(reading, reference.id)


async def test_a_bound_reference_is_open_to_the_profiles_groups_on_instances_that_may_run_the_server(
    world: World,
) -> None:
    (way,) = await ways_to(world)
    assert [one.group for one in way.groups] == ["agents-a"]
    assert [(server.name, field) for server, field in way.bound] == [("patients-db", "DB_URL")]
    assert way.choosable == ()
    assert {one.name for one in way.instances} == {"any", "this"}
    assert way.open_now


async def test_a_granted_reference_that_is_not_bound_can_be_chosen(world: World) -> None:
    await world.grant("hospital-a/read-only")
    (way,) = await ways_to(world, "hospital-a/read-only")
    assert way.bound == ()
    assert [(server.name, field) for server, field in way.choosable] == [("patients-db", "DB_URL")]


async def test_limits_narrow_a_way(world: World) -> None:
    await world.grant("x", labels={"env": "prod"})
    (way,) = await ways_to(world, "x")
    assert {one.name for one in way.instances} == {"this"}
    await world.grant("y", field="OTHER")
    (way,) = await ways_to(world, "y")
    assert (way.choosable, way.instances) == ((), ())


async def test_a_suspended_binding_gives_nothing(world: World) -> None:
    change = ServerChange(definition=STDIO.model_copy(update={"args": ("-x",)}))
    await world.do(foundations.update_server, "patients-db", change)
    (way,) = await ways_to(world)
    assert (way.bound, way.instances) == ((), ())


async def test_a_banned_instance_could_not(world: World) -> None:
    await world.do(instances.set_state, "this", InstanceState.BANNED)
    (way,) = await ways_to(world)
    assert {one.name for one in way.instances} == {"any"}


async def test_a_way_that_is_not_open_yet_is_told_as_such(world: World) -> None:
    await world.grant("later", starts_at=NOON + timedelta(hours=1))
    (way,) = await ways_to(world, "later")
    assert not way.open_now


async def test_a_reference_that_nobody_was_granted_has_no_way(world: World) -> None:
    world.catalog.add("lonely")
    assert await ways_to(world, "lonely") == ()
