"""One assertion, two resolvers, two replicas of audit: the log says so, whoever reads which record when."""

from __future__ import annotations

import asyncio
import secrets

import asyncpg

from services.audit.domain.sightings import SEEN_TWICE
from shared.events.access import Phase
from shared.events.audit import AuditAction
from tests.integration.audit.conftest import FakeResolver, Running, Stage, item


def digest() -> str:
    return secrets.token_hex(32)


async def ask(stage: Stage, statement: str) -> object:
    connection = await asyncpg.connect(stage.dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def alarms(running: Running, number: int) -> list[str]:
    """Which records the alarms are about."""
    found = await running.records(number, action=AuditAction.ALERT_RAISED)
    assert {one.reason for one in found} == {SEEN_TWICE}
    return sorted(one.cause_id for one in found)


async def test_an_assertion_that_two_resolvers_saw_is_flagged_once_for_each_repetition(stage: Stage) -> None:
    async with stage.audit() as running, stage.audit():
        first, second = stage.resolver(), stage.resolver()
        torn = digest()
        genuine, _ = await first.release(assertion=torn)
        await running.records(2)
        repeated, _ = await second.release(assertion=torn)
        assert await alarms(running, 1) == [repeated.id]
        # The replica that saw it itself refuses it: that is a sight like any other.
        refused = first.record(Phase.REFUSED, assertion=torn, reason="assertion-invalid:replayed")
        await first.say(refused)
        assert await alarms(running, 2) == sorted([repeated.id, refused.id])
        # Delivered again, nothing is news.
        await first.say(genuine)
        await second.say(repeated)
        await second.release(assertion=digest())
        await running.records(9)
        assert len(await alarms(running, 2)) == 2


async def test_two_audit_replicas_that_read_both_sights_at_once_miss_none(stage: Stage) -> None:
    async with stage.audit() as running, stage.audit():
        resolvers: list[FakeResolver] = [stage.resolver() for _ in range(8)]
        for _ in range(5):
            torn = digest()
            await asyncio.gather(*(one.release(assertion=torn) for one in resolvers))
        # Of eight sights of each, seven are repetitions, whichever came first.
        assert len(await alarms(running, 35)) == 35
        assert len(await running.records(8 * 5 * 2 + 35)) == 8 * 5 * 2 + 35


async def test_a_backlog_of_ordinary_requests_raises_nothing_and_old_ids_go(stage: Stage) -> None:
    resolver = stage.resolver()
    records = [resolver.record(Phase.AUTHORISED, assertion=digest(), items=(item(),)) for _ in range(300)]
    await resolver.say(*records)
    async with stage.audit(batch=50) as running:
        await running.records(300)
        assert not (await running.get("/v1/records", action=AuditAction.ALERT_RAISED))["items"]
        await ask(stage, "UPDATE keyfob_audit.assertions SET since = since - interval '11 minutes'")
        await resolver.say(resolver.record(Phase.AUTHORISED, assertion=digest(), items=(item(),)))
        await running.records(301)
        assert await ask(stage, "SELECT count(*) FROM keyfob_audit.assertions") == 1
