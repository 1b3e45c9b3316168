"""Repetition, death and poison: nothing is lost, nothing counts twice, nothing is stuck."""

from __future__ import annotations

import asyncpg

from shared import topics
from shared.bus.cloudevents import Message, decode
from shared.bus.signatures import from_header
from shared.events.notices import Notice, NoticeTick
from tests.integration.notifier.conftest import Stage
from tests.waiting import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def notices(stage: Stage) -> list[tuple[int, Notice]]:
    messages = await stage.bus.all_of(topics.NOTICES)
    return [(one.offset, decode(one, Notice)) for one in messages if one.type == Notice.TYPE]


async def test_a_change_that_is_delivered_twice_is_one_notice(stage: Stage) -> None:
    async with stage.notifier() as running:
        change = await stage.rotate()
        first = await running.noted(change.id)
        await stage.bus.send(change, key=change.reference_id)

        repeated = await until(lambda: _at_least(stage, 2), within=10)
        assert {notice.id for _, notice in repeated} == {first["notice"]["id"]}
        assert len({notice.to_json() for _, notice in repeated}) == 1
        marker = await stage.rotate(reference="reference/2")
        await running.noted(marker.id)
        assert (await running.convergence(change.id, wait_s=0))["offset"] == first["offset"]
        assert len((await running.get("/v1/notices"))["items"]) == 2


async def _at_least(stage: Stage, number: int) -> list[tuple[int, Notice]]:
    found = await notices(stage)
    return found if len(found) >= number else []


async def test_death_between_publishing_and_noting_loses_and_doubles_nothing(stage: Stage) -> None:
    await stage.policy.enrol("gateway-1")
    async with stage.notifier():
        pass  # the schema is there now
    blocker = await asyncpg.connect(stage.dsn)
    hold = blocker.transaction()
    await hold.start()
    await blocker.execute("LOCK TABLE keyfob_notifier.notices IN ACCESS EXCLUSIVE MODE")

    async with stage.notifier() as running:
        running.notifier.broker.config.broker_config.graceful_timeout = 0.1
        change = await stage.rotate()
        ((offset, published),) = await until(lambda: _at_least(stage, 1), within=10)
    # The process is gone; its notice is out, and nobody wrote it down.
    await hold.rollback()
    await blocker.close()

    async with stage.notifier() as running:
        answer = await running.noted(change.id)
        assert answer["notice"]["id"] == published.id
        assert answer["offset"] == offset
        assert [member["name"] for member in answer["members"]] == ["gateway-1"]
        assert len((await running.get("/v1/notices"))["items"]) == 1


async def test_poison_goes_to_the_dead_letters_and_the_next_change_is_announced(stage: Stage) -> None:
    async with stage.notifier() as running:
        await stage.bus.post(Message(topic=topics.VAULT_CHANGES, key="reference/1", value=b"\xff not an event"))
        change = await stage.rotate()

        await running.noted(change.id)
        (buried,) = await stage.bus.all_of(topics.dead(topics.VAULT_CHANGES))
        assert buried.value == b"\xff not an event"
        assert buried.header("dead_group") == "keyfob-notifier-vault"


async def test_rubbish_in_notices_and_receipts_stops_nobody(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    async with stage.notifier(gateway_bound_s=60) as running:
        for topic in (topics.NOTICES, topics.RECEIPTS):
            await stage.bus.post(Message(topic=topic, key="\u0000", value=b"{", headers=(("ce_type", b"\xff"),)))
            await stage.bus.post(Message(topic=topic, key=None, value=b""))
        change = await stage.rotate()
        offset = (await running.noted(change.id))["offset"]
        await gateway.receipt(applied=offset)
        assert (await running.convergence(change.id))["converged"]


async def test_a_change_that_ends_nothing_makes_no_notice_and_nobody_waits(stage: Stage) -> None:
    async with stage.notifier() as running:
        quiet = await stage.change_policy(seq=5)
        assert await running.convergence(quiet.id, wait_s=30) is None
        ended = await stage.change_policy("grant/1", seq=6)
        assert (await running.noted(ended.id))["notice"]["kind"] == "revocation"
        assert len(await notices(stage)) == 1


async def test_each_tick_of_policy_is_passed_on_as_it_was_signed(stage: Stage) -> None:
    async with stage.notifier():
        tick = await stage.policy.tick()

        async def passed() -> list[NoticeTick]:
            found = [one for one in await stage.bus.all_of(topics.NOTICES) if one.type == NoticeTick.TYPE]
            return [tick_ for one in found if (tick_ := decode(one, NoticeTick)).payload == tick.to_json()]

        (seen,) = await until(passed, within=10)
        original = (await stage.bus.all_of(topics.POLICY))[-1]
        assert seen.payload == original.value
        assert seen.signature == from_header(original.header("ce_signature"))


async def test_the_trace_of_a_change_goes_on_in_its_notice(stage: Stage) -> None:
    async with stage.notifier():
        await stage.rotate(traceparent=TRACE)
        await until(lambda: _at_least(stage, 1), within=10)
        (message,) = [one for one in await stage.bus.all_of(topics.NOTICES) if one.type == Notice.TYPE]
        assert (message.header("traceparent") or "").split("-")[1] == TRACE.split("-")[1]
