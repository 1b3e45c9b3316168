"""Enrolment: a token works once, for one instance, with what the admin fixed."""

from __future__ import annotations

import asyncio

import asyncpg

from services.policy.domain.enrolments import token_sha256
from shared import topics
from shared.bus.cloudevents import decode
from shared.events.changes import PolicyAction, PolicyChange
from shared.events.policy import InstanceRecord
from tests.integration.policy.conftest import RESOLVER_KEY, Instance, PolicyUnderTest, fresh
from tests.integration.policy.stories import hospital
from tests.waiting import until


async def promise(policy: PolicyUnderTest, name: str, **other: object) -> str:
    body = {"name": name, "allowed_servers": ["*"], **other}
    token: str = (await policy.call("POST", "/v1/enrolments", body, expect=201))["token"]
    return token


async def test_an_instance_gets_what_the_admin_fixed_and_the_keys_that_it_pins(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    gateway = Instance(fresh("gateway"))
    token = await promise(policy, gateway.name, labels={"env": "prod"}, allowed_servers=[it.server])
    answer = await policy.call("POST", "/v1/enrol", gateway.request(token), token="")
    assert answer["labels"] == {"env": "prod"}
    assert answer["allowed_servers"] == [it.server_id]
    assert answer["resolver_keys"] == [RESOLVER_KEY]
    assert answer["policy_key"] == policy.key.verify_key.to_base64()
    assert answer["bootstrap"] == {
        "broker": policy.settings.common.kafka_bootstrap,
        "resolver": "http://resolver-1,http://resolver-2",
    }
    shown = await policy.call("GET", f"/v1/instances/{gateway.name}")
    assert (shown["id"], shown["state"], shown["server_names"]) == (answer["instance_id"], "active", [it.server])
    enrolment = await policy.call("GET", f"/v1/enrolments/{gateway.name}")
    assert (enrolment["state"], enrolment["instance_id"]) == ("used", answer["instance_id"])


async def test_of_two_that_use_a_token_at_once_one_wins(policy: PolicyUnderTest) -> None:
    for _ in range(5):
        name = fresh("gateway")
        token = await promise(policy, name)
        requests = [Instance(name).request(token) for _ in range(4)]
        answers = await asyncio.gather(*(policy.http.post("/v1/enrol", json=one) for one in requests))
        assert sorted(one.status_code for one in answers) == [200, 401, 401, 401]


async def test_the_same_instance_may_ask_again_when_the_answer_was_lost(policy: PolicyUnderTest) -> None:
    gateway = Instance(fresh("gateway"))
    token = await promise(policy, gateway.name)
    first = await policy.call("POST", "/v1/enrol", gateway.request(token), token="")
    assert await policy.call("POST", "/v1/enrol", gateway.request(token), token="") == first
    await policy.call("DELETE", f"/v1/instances/{gateway.name}")
    await policy.call("POST", "/v1/enrol", gateway.request(token), token="", expect=401)


async def test_a_token_that_is_unknown_used_or_expired_is_refused_alike(policy: PolicyUnderTest) -> None:
    used, late = Instance(fresh("gateway")), Instance(fresh("gateway"))
    token = await promise(policy, used.name)
    await policy.call("POST", "/v1/enrol", used.request(token), token="")
    expired = await promise(policy, late.name, expires_in_s=1)

    async def is_expired() -> bool:
        state: str = (await policy.call("GET", f"/v1/enrolments/{late.name}"))["state"]
        return state == "expired"

    await until(is_expired)
    thief = Instance(used.name)
    requests = [thief.request(token), late.request(expired), late.request("kfe_" + "x" * 43)]
    answers = [await policy.http.post("/v1/enrol", json=one) for one in requests]
    assert {(one.status_code, one.content) for one in answers} == {(401, answers[0].content)}


async def test_keys_must_be_certified_and_the_name_the_one_promised(policy: PolicyUnderTest) -> None:
    gateway, other = Instance(fresh("gateway")), Instance(fresh("gateway"))
    token = await promise(policy, gateway.name)
    mixed = gateway.request(token, sealing_key=other.sealing.public.to_base64())
    await policy.call("POST", "/v1/enrol", mixed, token="", expect=400)
    await policy.call("POST", "/v1/enrol", other.request(token), token="", expect=400)
    await policy.call("POST", "/v1/enrol", gateway.request(token), token="")


async def test_a_key_belongs_to_one_instance(policy: PolicyUnderTest) -> None:
    first = Instance(fresh("gateway"))
    await policy.call("POST", "/v1/enrol", first.request(await promise(policy, first.name)), token="")
    second = Instance(fresh("gateway"), signing=first.signing)
    token = await promise(policy, second.name)
    await policy.call("POST", "/v1/enrol", second.request(token), token="", expect=409)


async def test_a_name_is_promised_once_at_a_time(policy: PolicyUnderTest) -> None:
    name = fresh("gateway")
    await promise(policy, name)
    await policy.call("POST", "/v1/enrolments", {"name": name}, expect=409)
    await policy.call("DELETE", f"/v1/enrolments/{name}")
    gateway = Instance(name)
    await policy.call("POST", "/v1/enrol", gateway.request(await promise(policy, name)), token="")
    await policy.call("POST", "/v1/enrolments", {"name": name}, expect=409)


async def test_the_database_never_holds_a_token(policy: PolicyUnderTest) -> None:
    token = await promise(policy, fresh("gateway"))
    connection = await asyncpg.connect(policy.dsn)
    try:
        rows = await connection.fetch("SELECT token_sha256, payload FROM keyfob_policy.enrolments")
    finally:
        await connection.close()
    assert token_sha256(token) in {row["token_sha256"] for row in rows}
    assert not any(token.encode() in row["payload"] for row in rows)


async def test_a_promise_that_somebody_slipped_into_the_database_lets_nobody_in(policy: PolicyUnderTest) -> None:
    honest, token = Instance(fresh("gateway")), "kfe_" + "y" * 43
    await promise(policy, honest.name)
    connection = await asyncpg.connect(policy.dsn)
    try:
        await connection.execute(
            "INSERT INTO keyfob_policy.enrolments (id, name, token_sha256, seq, event_id, payload, signature)"
            " SELECT 'enrolment/slipped', name, $1, seq, event_id, payload, signature"
            " FROM keyfob_policy.enrolments WHERE name = $2",
            token_sha256(token),
            honest.name,
        )
        answer = await policy.http.post("/v1/enrol", json=honest.request(token))
    finally:
        await connection.execute("DELETE FROM keyfob_policy.enrolments WHERE id = 'enrolment/slipped'")
        await connection.close()
    assert answer.status_code == 500
    assert answer.json()["type"].endswith("signature-invalid")


async def test_banning_ends_everything_that_an_instance_holds_and_allowing_lets_it_in_again(
    policy: PolicyUnderTest,
) -> None:
    gateway = Instance(fresh("gateway"))
    token = await promise(policy, gateway.name)
    instance_id = (await policy.call("POST", "/v1/enrol", gateway.request(token), token=""))["instance_id"]
    banned = await policy.call("POST", f"/v1/instances/{gateway.name}/ban")
    assert (banned["entity"]["state"], banned["ended"]) == ("banned", [instance_id])
    assert (await policy.call("POST", f"/v1/instances/{gateway.name}/ban"))["seq"] == banned["seq"]
    allowed = await policy.call("POST", f"/v1/instances/{gateway.name}/allow")
    assert (allowed["entity"]["state"], allowed["ended"]) == ("active", [])
    gone = await policy.call("DELETE", f"/v1/instances/{instance_id}")
    assert gone["ended"] == [instance_id]
    found = [one for one in await policy.messages(topics.POLICY, through_seq=gone["seq"]) if one.key == instance_id]
    states = [(record.state, record.deleted) for one in found for record in [decode(one, InstanceRecord)]]
    assert states == [("active", False), ("banned", False), ("active", False), ("active", True)]


async def test_promises_are_told_on_the_topic_of_changes(policy: PolicyUnderTest) -> None:
    name = fresh("gateway")
    made = await policy.call("POST", "/v1/enrolments", {"name": name}, expect=201)
    found = await policy.messages(topics.POLICY_CHANGES, through_seq=made["seq"])
    change = next(one for one in (decode(one, PolicyChange) for one in found) if one.id == made["event_id"])
    assert (change.action, change.entity_kind, change.entity_name) == (PolicyAction.CREATED, "enrolment", name)
    assert not any(made["token"].encode() in one.value for one in found)
