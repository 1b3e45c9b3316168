"""Commits are numbered without gaps in the order in which they became visible, and say everything or nothing."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from sqlalchemy import text

from shared.bus.cloudevents import PAYLOAD_LIMIT
from shared.bus.signatures import record_signer, record_verifies
from shared.crypto.framing import from_base64url
from shared.crypto.signing import SigningKey
from shared.errors import TooLarge
from shared.telemetry import current_traceparent, span
from tests.integration.bus.conftest import Service
from tests.waiting import until


async def outbox(service: Service) -> list[Any]:
    return await service.run_sql(
        "SELECT seq, position, parts, topic, key, headers, payload FROM outbox ORDER BY seq, position"
    )


async def test_numbers_are_dense_under_concurrency_and_rollback(service: Service) -> None:
    async def attempt(number: int) -> None:
        async with service.sessions() as session:
            commit = await service.commits.begin(session)
            service.say(commit, str(number))
            await commit.flush()
            await (session.rollback() if number % 3 == 0 else session.commit())

    await asyncio.gather(*(attempt(number) for number in range(60)))
    seqs = sorted({row.seq for row in await outbox(service)})
    assert seqs == list(range(1, 41))


async def test_a_later_number_is_never_visible_before_an_earlier_one(service: Service) -> None:
    holding, release = asyncio.Event(), asyncio.Event()

    async def slow() -> int:
        async with service.sessions() as session, session.begin():
            commit = await service.commits.begin(session)
            service.say(commit, "slow")
            await commit.flush()
            holding.set()
            await release.wait()
            return commit.seq

    first = asyncio.create_task(slow())
    await holding.wait()
    second = asyncio.create_task(service.commit("quick"))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%commit_counter%'"
    await until(lambda: service.run_sql(waiting))
    assert await outbox(service) == []
    release.set()
    assert (await first, await second) == (1, 2)


async def test_a_commit_that_is_rolled_back_says_nothing_and_its_number_is_used_again(service: Service) -> None:
    async with service.sessions() as session:
        commit = await service.commits.begin(session)
        service.say(commit, "a")
        await commit.flush()
        await session.rollback()
    assert await outbox(service) == []
    assert await service.commit("a") == commit.seq


async def test_a_commit_that_was_begun_but_not_flushed_can_not_be_committed(service: Service) -> None:
    with pytest.raises(RuntimeError, match="never flushed"):
        async with service.sessions() as session, session.begin():
            service.say(await service.commits.begin(session), "a")
    assert await service.commit("a") == 1


async def test_savepoints_before_the_flush_are_fine(service: Service) -> None:
    async with service.sessions() as session, session.begin():
        commit = await service.commits.begin(session)
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))
        service.say(commit, "a")
        await commit.flush()
    assert len(await outbox(service)) == 2


async def test_a_commit_without_a_record_of_state_is_refused(service: Service) -> None:
    async with service.sessions() as session:
        commit = await service.commits.begin(session)
        commit.event(service.Switched(lamp="a"), key="a", event_id="e")
        with pytest.raises(ValueError, match="no record of state"):
            await commit.flush()


async def test_an_entity_is_said_once_and_under_the_commit_s_own_number(service: Service) -> None:
    async with service.sessions() as session:
        commit = await service.commits.begin(session)
        commit.state(service.Lamp(id="lamp/a", seq=commit.seq, revision=1))
        with pytest.raises(ValueError, match="already said"):
            commit.state(service.Lamp(id="lamp/a", seq=commit.seq, revision=1))
        with pytest.raises(ValueError, match="carries commit"):
            commit.state(service.Lamp(id="lamp/b", seq=commit.seq + 1, revision=1))


async def test_what_no_topic_would_take_is_refused_before_it_is_stored(service: Service) -> None:
    async with service.sessions() as session:
        commit = await service.commits.begin(session)
        with pytest.raises(TooLarge):
            commit.state(service.Lamp(id="lamp/a", seq=commit.seq, revision=1, colour="x" * PAYLOAD_LIMIT))


async def test_each_message_says_its_commit_its_part_and_its_trace(service: Service) -> None:
    with span("a request"):
        async with service.sessions() as session, session.begin():
            commit = await service.commits.begin(session)
            service.say(commit, "a", "b")
            await commit.flush()
        trace = current_traceparent()
    rows = await outbox(service)
    headers = [row.headers if isinstance(row.headers, dict) else json.loads(row.headers) for row in rows]
    assert [header["ce_commitpart"] for header in headers] == ["1/2", "2/2", "1/1"]
    assert {header["ce_commitseq"] for header in headers} == {"1"}
    assert {uuid.UUID(header["ce_commitid"]) for header in headers} == {commit.id}
    assert {header.get("traceparent") for header in headers} == {trace}
    assert [row.parts for row in rows] == [3, 3, 3]


async def test_a_signed_record_verifies_against_exactly_what_is_stored(service: Service) -> None:
    key = SigningKey.generate()
    async with service.sessions() as session, session.begin():
        commit = await service.commits.begin(session)
        commit.state(service.Lamp(id="lamp/a", seq=commit.seq, revision=1), signer=record_signer(key))
        await commit.flush()
    (row,) = await outbox(service)
    assert row.headers["ce_keyid"] == key.key_id
    signature = from_base64url(row.headers["ce_signature"])
    stored = {"topic": row.topic, "type_": row.headers["ce_type"], "key": row.key, "payload": row.payload}
    assert record_verifies(key.verify_key, signature, **stored)
    assert not record_verifies(key.verify_key, signature, **stored | {"key": "lamp/b"})
