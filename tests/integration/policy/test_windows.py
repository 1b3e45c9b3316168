"""Timed grants: their windows open and close by the database's clock, once, however many replicas look."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest_asyncio

from services.policy.ledger import PgLedger
from services.policy.timing import Windows
from shared import topics
from shared.bus.cloudevents import decode
from shared.events.changes import PolicyAction, PolicyChange
from shared.events.policy import GrantRecord
from tests.integration.policy.conftest import PolicyUnderTest, fresh
from tests.integration.policy.stories import hospital
from tests.waiting import until


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def events_of(policy: PolicyUnderTest, entity_id: str) -> list[PolicyChange]:
    found = [decode(one, PolicyChange) for one in await policy.messages(topics.POLICY_CHANGES)]
    return [one for one in found if one.entity_id == entity_id]


@pytest_asyncio.fixture(loop_scope="session")
async def replicas(ledger: PgLedger) -> AsyncIterator[None]:
    """Three more replicas that look for windows all the time."""
    others = [asyncio.create_task(Windows(ledger, every_s=0.02).run()) for _ in range(3)]
    yield
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def granted(policy: PolicyUnderTest, **window: float) -> str:
    """A grant whose edges are that many seconds ahead when it is asked for."""
    it = await hospital(policy)
    body = {"profile": it.profile, "reference": it.reference, **{edge: soon(ahead) for edge, ahead in window.items()}}
    grant_id: str = (await policy.call("POST", "/v1/grants", body, expect=201))["entity_id"]
    return grant_id


async def told(policy: PolicyUnderTest, grant_id: str, *, last: PolicyAction) -> list[PolicyChange]:
    """What was told of a grant, once `last` was, and everything after it that is on its way has come too."""

    async def found() -> list[PolicyChange]:
        events = await events_of(policy, grant_id)
        return events if events[-1:] and events[-1].action is last else []

    await until(found, within=20, every=0.2)
    witness = await policy.call("POST", "/v1/profiles", {"name": fresh("witness")})
    await policy.messages(topics.POLICY_CHANGES, through_seq=witness["seq"])
    return await events_of(policy, grant_id)


async def records_of(policy: PolicyUnderTest, grant_id: str) -> list[GrantRecord]:
    return [decode(one, GrantRecord) for one in await policy.messages(topics.POLICY) if one.key == grant_id]


async def test_a_window_opens_once_however_many_replicas_look(policy: PolicyUnderTest, replicas: None) -> None:
    grant_id = await granted(policy, starts_at=1, ends_at=3600)
    events = await told(policy, grant_id, last=PolicyAction.STARTED)
    assert [(one.action, one.ended) for one in events] == [(PolicyAction.CREATED, ()), (PolicyAction.STARTED, ())]
    records = await records_of(policy, grant_id)
    assert [(one.seq, one.revision, one.deleted) for one in records] == [
        (events[0].seq, 1, False),
        (events[1].seq, 2, False),
    ]
    assert events[1].at >= records[1].starts_at  # type: ignore[operator]


async def test_a_window_closes_once_and_ends_the_grant(policy: PolicyUnderTest, replicas: None) -> None:
    grant_id = await granted(policy, ends_at=1)
    events = await told(policy, grant_id, last=PolicyAction.ENDED)
    assert [(one.action, one.ended) for one in events] == [
        (PolicyAction.CREATED, ()),
        (PolicyAction.ENDED, (grant_id,)),
    ]
    assert (events[1].actor.idp, events[1].actor.subject) == ("keyfob", "clock")
    records = await records_of(policy, grant_id)
    assert [(one.seq, one.deleted) for one in records] == [(events[0].seq, False), (events[1].seq, True)]
    assert events[1].at >= records[0].ends_at  # type: ignore[operator]
    await policy.call("GET", f"/v1/grants/{grant_id}", expect=404)


async def test_a_grant_that_is_over_or_never_opens_is_refused(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    body = {"profile": it.profile, "reference": it.reference}
    await policy.call("POST", "/v1/grants", body | {"ends_at": soon(-1)}, expect=400)
    await policy.call("POST", "/v1/grants", body | {"starts_at": soon(9), "ends_at": soon(5)}, expect=400)
    await policy.call("POST", "/v1/grants", body | {"ends_at": "2999-01-01T00:00:00"}, expect=400)


async def test_a_grant_that_is_deleted_before_its_end_ends_once(policy: PolicyUnderTest) -> None:
    grant_id = await granted(policy, ends_at=2)
    await policy.call("DELETE", f"/v1/grants/{grant_id}")
    later = await granted(policy, ends_at=2)
    await told(policy, later, last=PolicyAction.ENDED)
    assert [one.action for one in await events_of(policy, grant_id)] == [PolicyAction.CREATED, PolicyAction.DELETED]
