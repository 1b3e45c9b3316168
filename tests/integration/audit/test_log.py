"""The log: every event once, numbers without gaps, in the database and in the topic alike."""

from __future__ import annotations

import asyncio

import pytest

from shared import topics
from shared.bus.cloudevents import Message, encode
from shared.events.access import Phase
from shared.events.alerts import Alert, Severity
from shared.events.audit import AuditAction, AuditRecord
from tests.fakes.authorities import now
from tests.integration.audit.conftest import Stage, item
from tests.waiting import until


def numbers(records: list[AuditRecord]) -> list[int]:
    return [record.n for record in records]


async def test_a_record_that_is_delivered_twice_counts_once(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        first, second = await resolver.release()
        await running.records(2)
        await resolver.say(first, second, first)
        marker = resolver.record(Phase.REFUSED, reason="not-available")
        await resolver.say(marker)

        found = await running.records(3)
        assert numbers(found) == [1, 2, 3]
        assert [one.cause_n for one in found] == [0, 1, 2]
        assert [one.n for one in await stage.published(3)] == [1, 2, 3]


async def test_numbers_are_dense_over_restarts_and_two_replicas(stage: Stage) -> None:
    resolvers = [stage.resolver() for _ in range(6)]
    async with stage.audit():
        await asyncio.gather(*(resolver.release() for resolver in resolvers))
        # It is stopped whatever it is doing.
    async with stage.audit() as one, stage.audit():
        for _ in range(5):
            await asyncio.gather(*(resolver.release() for resolver in resolvers))
        await one.records(72)
    async with stage.audit() as running:
        await asyncio.gather(*(resolver.release() for resolver in resolvers))

        found = await running.records(84)
        assert numbers(found) == list(range(1, 85))
        assert len({(one.cause_stream, one.cause_n) for one in found}) == 84
        assert not [one for one in found if one.action is AuditAction.ALERT_RAISED]
        assert [one.to_json() for one in await stage.published(84)] == [one.to_json() for one in found]


async def test_poison_goes_to_the_dead_letters_and_the_next_record_is_kept(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        await stage.bus.post(Message(topic=topics.ACCESS, key=resolver.stream, value=b"\xff"))
        await resolver.release()

        assert numbers(await running.records(2)) == [1, 2]
        (buried,) = await until(lambda: stage.bus.all_of(topics.dead(topics.ACCESS)), within=10)
        assert buried.value == b"\xff"


async def test_records_that_are_missing_are_an_alert_in_front_of_the_one_that_showed_it(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        await resolver.release()
        withheld = resolver.record(Phase.REFUSED, reason="not-available")
        await resolver.release()

        found = await running.records(5)
        assert [one.reason for one in found] == ["", "", "stream-gap", "", ""]
        assert found[2].action is AuditAction.ALERT_RAISED
        assert found[2].cause_stream == resolver.stream

        # It was only late: it is kept, and said so.
        await resolver.say(withheld)
        late = await running.records(7)
        assert {one.reason for one in late[5:]} == {"stream-late", "not-available"}
        assert [one.n for one in late] == list(range(1, 8))


async def test_a_record_that_was_exchanged_shows_at_the_next_one(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        true = resolver.record(Phase.REFUSED, reason="not-available")
        await resolver.say(true.model_copy(update={"reason": "something-else"}))
        await resolver.say(resolver.record(Phase.REFUSED, reason="not-available"))

        found = await running.records(3)
        assert [one.reason for one in found] == ["something-else", "stream-broken", "not-available"]


async def test_a_number_that_comes_twice_with_different_content_is_an_alert(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        true = resolver.record(Phase.REFUSED, reason="not-available")
        await resolver.say(true)
        await running.records(1)
        await resolver.say(true.model_copy(update={"reason": "something-else"}))

        found = await running.records(2)
        assert [one.reason for one in found] == ["not-available", "stream-fork"]


async def test_every_kind_of_event_becomes_a_record_that_the_schema_describes(stage: Stage) -> None:
    alert = Alert(id="alert/1", kind="receipt-forged", severity=Severity.CRITICAL, summary="Somebody lied.", at=now())
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with stage.audit() as running:
        await stage.bus.post(encode(alert, key=alert.id, source="test", event_id=alert.id, traceparent=traceparent))
        (record,) = await running.records(1)
        assert record.action is AuditAction.ALERT_RAISED
        assert record.reason == "receipt-forged"
        assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("size", [400])
async def test_a_backlog_is_taken_in_batches(stage: Stage, size: int) -> None:
    resolver = stage.resolver()
    records = [resolver.record(Phase.AUTHORISED, items=(item(),)) for _ in range(size)]
    await asyncio.gather(*(resolver.say(record) for record in records[:1]))
    for record in records[1:]:
        await resolver.say(record)
    async with stage.audit(batch=100) as running:
        found = await running.records(size)
        assert numbers(found) == list(range(1, size + 1))
        assert [one.cause_n for one in found] == list(range(size))
