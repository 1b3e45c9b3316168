"""The broker may go away and come back while everything runs: nothing hangs meanwhile, and nothing is lost."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from services.dev.stack.environments import DATABASE
from services.gateway.client.leases import Floor
from services.gateway.client.resolving import Refused, Resolvers
from tests.chaos.clients import Client
from tests.chaos.ordeal import Ordeal
from tests.waiting import until

ANSWERED_WITHIN_S = 4.0
"""A resolver's own deadline for a record and the rest of its work, with room for a busy machine."""


@pytest.mark.timeout(300)
async def test_without_a_broker_resolves_are_refused_and_after_it_everything_goes_on(
    attacked: Ordeal, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = attacked.stage.stack.platform.broker
    for each in attacked.clients:
        assert await each.value() == (attacked.value, str(attacked.version))
    async with attacked.busy():
        went = time.monotonic()
        await _gone(attacked)
        await asyncio.gather(*(_refuses(each, url) for each in attacked.clients for url in each.resolvers.urls))
        await attacked.rotate()
        given = sum(len(each.resolvers.told) for each in attacked.clients)
        await asyncio.gather(*(each.burst() for each in attacked.clients))
        assert sum(len(each.resolvers.told) for each in attacked.clients) == given, "nothing was given without a record"
        await broker.start()
        answers = time.monotonic()
        await until(
            lambda: sum(len(each.resolvers.told) for each in attacked.clients) > given, within=60, what="a new answer"
        )
        first = time.monotonic()
        await attacked.everybody_acted()
        acted = time.monotonic()
        await attacked.everybody_has_the_new_value()
    attacked.nothing_strange_was_seen()
    with capsys.disabled():
        print(
            f"\nbroker away {answers - went:.1f} s; first resolve {first - answers:.2f} s after it answered again, "
            f"the rotation of the outage everywhere after {acted - answers:.2f} s"
        )
    await attacked.check_everything_that_was_written()


async def _gone(attacked: Ordeal) -> None:
    """Kill the broker. One that must save at its end acknowledges to the last, and loses that: nobody writes then.

    Nor does anybody then publish: such a broker also spoils the transactions that are open at its end.
    """
    stack = attacked.stage.stack
    broker = stack.platform.broker
    if broker.survives_kill:
        broker.kill()
        return
    writers = list(stack.supervisor.processes.values())

    async def all_stand_still() -> bool:
        for process in writers:
            process.suspend()
        if await _nothing_is_to_be_published(stack.platform.postgres.dsn(DATABASE)):
            return True
        for process in writers:
            process.resume()
        return False

    await until(all_stand_still, within=60, every=0.05)
    try:
        await broker.stop()
    finally:
        for process in writers:
            process.resume()


async def _nothing_is_to_be_published(dsn: str) -> bool:
    """Every outbox is empty: a relay forgets a commit only when its transaction has ended."""
    connection = await asyncpg.connect(dsn)
    try:
        schemas = await connection.fetch("SELECT schemaname FROM pg_tables WHERE tablename = 'outbox'")
        assert schemas
        counts = [await connection.fetchval(f'SELECT count(*) FROM "{name}".outbox') for (name,) in schemas]  # noqa: S608
    finally:
        await connection.close()
    return not any(counts)


async def _refuses(one: Client, url: str) -> None:
    """One resolver by itself answers 503 within the deadline."""
    alone = Resolvers([url], one.resolvers.identity, one.post, deadline_s=ANSWERED_WITHIN_S)
    began = time.monotonic()
    with pytest.raises(Refused) as refusal:
        await alone.ask(one.token, one.wanted, Floor())
    assert refusal.value.status == 503
    assert time.monotonic() - began < ANSWERED_WITHIN_S + 1
