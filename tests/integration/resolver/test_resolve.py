"""A whole resolve on the real broker and the real secret manager."""

from __future__ import annotations

import asyncio

import pytest

from shared import topics
from shared.bus.cloudevents import decode
from shared.events.access import AccessRecord, Phase
from shared.events.receipts import ResolverReceipt
from tests.fakes.gateway import values
from tests.integration.resolver.conftest import World, secret_of
from tests.integration.resolver.topics import reading, streams
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)


async def recorded(world: World, resolution_of: str) -> list[AccessRecord]:
    """The records of the resolution that has this record."""
    await world.replica.bus.recorder.flush()
    async with reading(world.kafka, topics.ACCESS) as access:
        everything = [record for told in streams(await access.all()).values() for record in told]
    (resolution,) = {record.resolution_id for record in everything if record.id == resolution_of}
    return [record for record in everything if record.resolution_id == resolution]


async def test_each_hospital_gets_its_own_value_and_both_records_are_there(world: World) -> None:
    for hospital in ("hospital-a", "hospital-b"):
        answer = await world.gateway.resolve(world.token(hospital, "ana"))
        assert values(answer) == {"DB_URL": secret_of(hospital).encode()}
        authorised, released = await recorded(world, f"{answer.record.stream}/{answer.record.n}")
        assert (authorised.phase, released.phase) == (Phase.AUTHORISED, Phase.RELEASED)
        assert (authorised.context, authorised.instance_name, authorised.server_name) == (
            hospital,
            "gateway-1",
            "patients-db",
        )
        assert authorised.subject is not None
        assert (authorised.subject.subject, authorised.subject.groups) == ("ana", (f"{hospital}-staff",))
        assert [(item.field, item.reference_name, item.version) for item in released.items] == [
            ("DB_URL", f"{hospital}/db-dsn", "1")
        ]


async def test_a_refusal_is_a_record_too(world: World) -> None:
    reply = await world.gateway.ask(world.token("hospital-a", "nosy"), context="hospital-b")
    assert reply.status == 404
    async with reading(world.kafka, topics.ACCESS) as access:
        told = [record for stream in streams(await access.all()).values() for record in stream]
    (refused,) = [record for record in told if record.subject and record.subject.subject == "nosy"]
    assert (refused.phase, refused.reason, refused.context) == (Phase.REFUSED, "context-not-yours", "hospital-b")


async def test_many_at_once_each_get_their_own(world: World) -> None:
    hospitals = ["hospital-a", "hospital-b"] * 32
    answers = await asyncio.gather(
        *(world.gateway.resolve(world.token(name, f"agent-{index}")) for index, name in enumerate(hospitals))
    )
    for hospital, answer in zip(hospitals, answers, strict=True):
        assert values(answer) == {"DB_URL": secret_of(hospital).encode()}
    assert len({(answer.record.stream, answer.record.n) for answer in answers}) == 64


async def test_a_rotation_is_read_at_once_and_an_old_version_never_after_the_catalog_knows(world: World) -> None:
    version = await world.rotate("hospital-a", "rotated")
    answer = await world.gateway.resolve(world.token("hospital-a"))
    assert (values(answer)["DB_URL"], answer.fields[0].lease.version) == (b"rotated", version)
    world.estate.again("reference/hospital-a/db-dsn", version=version)
    floor = await world.tell()
    seen = {"policy": floor.policy, "catalog": floor.catalog}
    assert values(await world.gateway.resolve(world.token("hospital-a"), floor=seen))["DB_URL"] == b"rotated"
    world.estate.again("reference/hospital-a/db-dsn", version=str(int(version) + 1))
    await world.tell()
    assert (await world.gateway.ask(world.token("hospital-a"))).status == 503
    newest = await world.rotate("hospital-a", secret_of("hospital-a"))
    answer = await world.gateway.resolve(world.token("hospital-a"))
    assert answer.fields[0].lease.version == newest


async def test_a_revocation_refuses_as_soon_as_it_is_applied(world: World) -> None:
    assert (await world.gateway.ask(world.token("hospital-b"))).status == 200
    world.estate.end("grant/hospital-b-hospital-b/db-dsn")
    floor = await world.say()
    seen = {"policy": floor.policy, "catalog": floor.catalog}
    reply = await world.gateway.ask(world.token("hospital-b"), floor=seen)
    assert reply.status in {404, 503}
    await world.tell()
    assert (await world.gateway.ask(world.token("hospital-b"), floor=seen)).status == 404
    world.estate.grant("hospital-b", "hospital-b/db-dsn")
    await world.tell()
    assert (await world.gateway.ask(world.token("hospital-b"))).status == 200


async def test_a_source_that_nobody_answers_for_is_refused_within_the_deadline(world: World) -> None:
    place = world.estate.live["source/vault"][0].place  # type: ignore[attr-defined]
    world.estate.again("source/vault", place=place.model_copy(update={"mount": "elsewhere"}))
    await world.tell()
    reply = await world.gateway.ask(world.token("hospital-a"))
    assert reply.status == 503
    assert b"source-unavailable" in reply.body
    world.estate.again("source/vault", place=place)
    await world.tell()


async def test_receipts_tell_at_once_how_far_it_is(world: World) -> None:
    floor = await world.tell()

    async def told() -> bool:
        async with reading(world.kafka, topics.RECEIPTS) as receipts:
            said = [decode(message, ResolverReceipt) for message in await receipts.all()]
        return any(one.policy_seq >= floor.policy and one.catalog_seq >= floor.catalog and one.fresh for one in said)

    await until(told, within=5, every=0.05)


async def test_a_broker_that_goes_away_means_refusals_and_afterwards_everything_goes_on(world: World) -> None:
    token = world.token("hospital-a")
    assert (await world.gateway.ask(token)).status == 200
    if world.broker.survives_kill:
        world.broker.kill()
    else:
        # It acknowledges what comes between its last save and its end, and loses that.
        await world.replica.bus.recorder.flush()
        await world.broker.stop()
    reply = await world.gateway.ask(token)
    assert reply.status == 503
    assert secret_of("hospital-a").encode() not in reply.body
    await until(lambda: world.replica.knowledge.stale() is not None, within=10)
    assert b"not-fresh" in (await world.gateway.ask(token)).body
    await world.broker.start()
    await world.fresh()

    async def works() -> bool:
        return (await world.gateway.ask(token)).status == 200

    await until(works, within=30, every=0.2)
    await world.replica.bus.recorder.flush()
    async with reading(world.kafka, topics.ACCESS) as access:
        told = [record for stream in streams(await access.all()).values() for record in stream]
    outcomes = {record.resolution_id for record in told if record.phase in {Phase.RELEASED, Phase.ABANDONED}}
    authorised = {record.resolution_id for record in told if record.phase is Phase.AUTHORISED}
    # An authorisation that nobody saw land is voided in the next stream all the same: that outcome may stand alone.
    assert authorised <= outcomes


async def test_no_value_and_no_token_is_in_any_topic(world: World) -> None:
    token = world.token("hospital-a")
    await world.gateway.resolve(token)
    await world.replica.bus.recorder.flush()
    needles = [secret_of("hospital-a").encode(), b"rotated", token.encode(), token.split(".")[2].encode()]
    planted = False
    for topic in topics.TOPICS:
        async with reading(world.kafka, topic.name) as everything:
            for message in await everything.all():
                whole = message.value + b"".join(value for _, value in message.headers)
                assert not any(needle in whole for needle in needles)
                planted = planted or b"hospital-a/db-dsn" in whole
    assert planted, "the search finds what is there"
