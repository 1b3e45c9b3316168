"""Two replicas of policy on one database: what only the database can decide, it decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
import pytest_asyncio

from services.policy.app import build
from shared import topics
from shared.bus.cloudevents import decode
from shared.config import Mode
from shared.egress import guarded_session
from shared.events.changes import PolicyAction, PolicyChange
from tests.integration.policy.conftest import Instance, PolicyUnderTest, fresh
from tests.integration.policy.test_enrolment import promise
from tests.waiting import until


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def second(policy: PolicyUnderTest) -> AsyncIterator[httpx2.AsyncClient]:
    """Another whole replica: its own connections, its own ledger, nothing shared but the database and the broker."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(guarded_session(mode=Mode.DEVELOPMENT))
        service = build(policy.settings, session)
        await stack.enter_async_context(service.app.router.lifespan_context(service.app))
        transport = httpx2.ASGITransport(app=service.app, raise_app_exceptions=False)
        yield await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url="http://policy-2"))


async def test_of_two_that_use_a_token_at_once_on_two_replicas_one_wins(
    policy: PolicyUnderTest, second: httpx2.AsyncClient
) -> None:
    for _ in range(10):
        name = fresh("gateway")
        token = await promise(policy, name)
        requests = [Instance(name).request(token) for _ in range(4)]
        doors = [policy.http, second, second, policy.http]
        answers = await asyncio.gather(
            *(door.post("/v1/enrol", json=one) for door, one in zip(doors, requests, strict=True))
        )
        assert sorted(one.status_code for one in answers) == [200, 401, 401, 401]
        (winner,) = [one for one, answer in zip(requests, answers, strict=True) if answer.status_code == 200]
        shown = await policy.call("GET", f"/v1/instances/{name}")
        assert shown["signing_key"] == winner["signing_key"]


async def test_the_same_instance_that_asks_both_at_once_is_one_instance(
    policy: PolicyUnderTest, second: httpx2.AsyncClient
) -> None:
    for _ in range(5):
        gateway = Instance(fresh("gateway"))
        asked = gateway.request(await promise(policy, gateway.name))
        answers = await asyncio.gather(*(door.post("/v1/enrol", json=asked) for door in (policy.http, second)))
        assert [one.status_code for one in answers] == [200, 200]
        assert answers[0].json() == answers[1].json()


async def test_an_expired_token_is_expired_on_both_also_for_who_used_it(
    policy: PolicyUnderTest, second: httpx2.AsyncClient
) -> None:
    gateway, late = Instance(fresh("gateway")), Instance(fresh("gateway"))
    token = await promise(policy, gateway.name, expires_in_s=2)
    unused = await promise(policy, late.name, expires_in_s=1)
    assert (await second.post("/v1/enrol", json=gateway.request(token))).status_code == 200

    async def over() -> bool:
        again = await second.post("/v1/enrol", json=gateway.request(token))
        return again.status_code == 401

    await until(over, within=10)
    answers = [await door.post("/v1/enrol", json=late.request(unused)) for door in (policy.http, second)]
    assert [one.status_code for one in answers] == [401, 401]
    assert answers[0].content == answers[1].content


async def test_both_who_used_a_token_are_on_record_once(policy: PolicyUnderTest, second: httpx2.AsyncClient) -> None:
    name = fresh("gateway")
    requests = [Instance(name).request(await promise(policy, name))]
    requests += [Instance(name).request(requests[0]["token"])]
    doors = (policy.http, second)
    answers = await asyncio.gather(
        *(door.post("/v1/enrol", json=one) for door, one in zip(doors, requests, strict=True))
    )
    assert sorted(one.status_code for one in answers) == [200, 401]
    marker = await policy.call("POST", "/v1/profiles", {"name": fresh("profile")})
    told = await policy.messages(topics.POLICY_CHANGES, through_seq=marker["seq"])
    changes = [decode(message, PolicyChange) for message in told]
    created = [one for one in changes if (one.entity_kind, one.entity_name) == ("instance", name)]
    assert [one.action for one in created] == [PolicyAction.CREATED]
    # And so does the one that came too late, whichever replica it came to.
    tried = [one.action for one in changes if (one.entity_kind, one.entity_name) == ("enrolment", name)]
    assert tried == [PolicyAction.CREATED, PolicyAction.REFUSED]
