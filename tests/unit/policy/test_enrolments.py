"""What an enrolment token is worth."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from services.policy.commands import instances
from services.policy.commands.instances import Promised
from services.policy.commands.newcomers import KeyHolder
from services.policy.domain import enrolments
from services.policy.domain.drafts import EnrolmentDraft
from services.policy.domain.enrolments import Admit, Refuse, Repeat, new_token, token_sha256
from services.policy.domain.ports import Work
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.delivery.enrolment import certify_sealing_key
from shared.delivery.messages import EnrolRequest
from shared.errors import BadRequest, Conflict, NotAvailable, Unauthenticated
from shared.events.policy import InstanceRecord, InstanceState, ServerRecord
from tests.unit.policy.stories import NOON, World, refused


def request(token: str, name: str = "gateway-1", signing: SigningKey | None = None) -> EnrolRequest:
    signing, sealing = signing or SigningKey.generate(), SealingKey.generate()
    return EnrolRequest(
        token=SecretStr(token),
        name=name,
        signing_key=signing.verify_key.to_base64(),
        sealing_key=sealing.public.to_base64(),
        sealing_key_signature=certify_sealing_key(signing, sealing.public),
    )


async def enrol(work: Work, asked: EnrolRequest) -> InstanceRecord:
    return await instances.enrol(work, KeyHolder(asked))


async def promised(world: World, **other: Any) -> Promised:
    draft = EnrolmentDraft.model_validate({"name": "gateway-1", "allowed_servers": ["*"], **other})
    return await world.do(instances.promise, draft)


async def test_a_token_lets_one_instance_in_with_what_was_promised() -> None:
    world = World()
    server = await world.server()
    token = (await promised(world, labels={"env": "prod"}, allowed_servers=["patients-db", server.id])).token
    instance = await world.do(enrol, request(token))
    assert (instance.name, instance.labels, instance.allowed_servers) == ("gateway-1", {"env": "prod"}, (server.id,))
    assert instance.state is InstanceState.ACTIVE
    assert isinstance(await refused(world, enrol, request(token)), Unauthenticated)


async def test_servers_that_are_left_out_are_none() -> None:
    world = World()
    token = (await promised(world, allowed_servers=[])).token
    assert (await world.do(enrol, request(token))).allowed_servers == ()


async def test_the_same_keys_get_the_same_answer_until_the_token_expires() -> None:
    world = World()
    asked = request((await promised(world)).token)
    first = await world.do(enrol, asked)
    assert await world.do(enrol, asked) == first
    assert sum(isinstance(one, InstanceRecord) for one in world.living()) == 1
    world.ledger.now = NOON + timedelta(hours=1)
    assert isinstance(await refused(world, enrol, asked), Unauthenticated)


async def test_a_token_expires() -> None:
    world = World()
    token = (await promised(world, expires_in_s=10)).token
    world.ledger.now = NOON + timedelta(seconds=10)
    assert isinstance(await refused(world, enrol, request(token)), Unauthenticated)


@pytest.mark.parametrize("token", ["kfe_x", "", "\ud800", "ü" * 50])
async def test_an_unknown_token_is_refused(token: str) -> None:
    with pytest.raises((Unauthenticated, BadRequest, ValueError)):
        await World().do(enrol, request(token))


async def test_a_token_that_was_taken_back_is_worth_nothing() -> None:
    world = World()
    token = (await promised(world)).token
    await world.do(instances.withdraw, "gateway-1")
    assert isinstance(await refused(world, enrol, request(token)), Unauthenticated)
    assert isinstance(await refused(world, instances.withdraw, "gateway-1"), NotAvailable)


async def test_names_and_keys_belong_to_one_instance() -> None:
    world, signing = World(), SigningKey.generate()
    await world.do(enrol, request((await promised(world)).token, signing=signing))
    assert isinstance(await refused(world, instances.promise, EnrolmentDraft(name="gateway-1")), Conflict)
    token = (await promised(world, name="gateway-2")).token
    same_key = request(token, "gateway-2", signing)
    assert isinstance(await refused(world, enrol, same_key), Conflict)
    assert isinstance(await refused(world, enrol, request(token, "gateway-3")), BadRequest)
    assert (await world.do(enrol, request(token, "gateway-2"))).name == "gateway-2"


async def test_a_sealing_key_that_the_signing_key_did_not_certify_is_refused() -> None:
    good, other = request("kfe_x"), request("kfe_x")
    KeyHolder(good).prove()
    for broken in (
        good.model_copy(update={"sealing_key": other.sealing_key}),
        good.model_copy(update={"signing_key": other.signing_key}),
        good.model_copy(update={"sealing_key_signature": other.sealing_key_signature}),
    ):
        with pytest.raises(BadRequest):
            KeyHolder(broken).prove()


async def test_banning_ends_what_the_instance_holds_and_allowing_ends_nothing() -> None:
    world = World()
    instance = await world.do(enrol, request((await promised(world)).token))
    banned = await world.do(instances.set_state, "gateway-1", InstanceState.BANNED)
    assert (banned.record.state, banned.receipt.ended) == (InstanceState.BANNED, (instance.id,))
    allowed = await world.do(instances.set_state, instance.id, InstanceState.ACTIVE)
    assert (allowed.record.state, allowed.receipt.ended) == (InstanceState.ACTIVE, ())


async def test_an_instance_outlives_a_server_that_it_was_allowed_to_run() -> None:
    world = World()
    await world.server()
    token = (await promised(world, allowed_servers=["patients-db"])).token
    instance = await world.do(enrol, request(token))
    assert instance.id not in (await world.delete(ServerRecord, "patients-db")).ended


def test_tokens_differ_and_only_their_digest_is_kept() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) >= 47 and token.startswith("kfe_") for token in tokens)
    assert len({token_sha256(token) for token in tokens}) == 100


async def test_a_promise_does_not_show_its_token() -> None:
    world = World()
    made = await promised(world)
    assert made.token not in repr(made)
    assert made.token not in repr(world.ledger)


async def test_every_verdict() -> None:
    world = World()
    made = await promised(world)
    asked = request(made.token)
    assert enrolments.judge(made.enrolment, None, same=False, now=NOON) == Admit(made.enrolment)
    assert enrolments.judge(None, None, same=False, now=NOON) == Refuse()
    instance = await world.do(enrol, asked)
    used = await World.do(world, _named, "gateway-1")
    assert enrolments.judge(used, instance, same=True, now=NOON) == Repeat(instance)
    assert enrolments.judge(used, None, same=False, now=NOON) == Refuse()
    assert enrolments.judge(used, instance, same=False, now=NOON) == Refuse()


async def test_only_both_keys_make_it_the_same_instance() -> None:
    world = World()
    asked = request((await promised(world)).token)
    instance = await world.do(enrol, asked)
    assert KeyHolder(asked).is_same(instance)
    for other in ({"sealing_key": "A" * 43}, {"signing_key": "A" * 43}):
        assert not KeyHolder(asked.model_copy(update=other)).is_same(instance)


async def _named(work: Any, name: str) -> Any:
    return await work.enrolment_by_name(name)
