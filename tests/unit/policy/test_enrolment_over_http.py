"""How an instance comes in: an administrator's promise, a token that is shown once, and one answer to all bad ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from services.policy.commands.refusals import MOST, RefusalAllowance
from services.policy.domain.enrolments import TOKEN_PREFIX, Enrolment, EnrolmentRecord
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.delivery.enrolment import certify_sealing_key
from shared.events.changes import PolicyAction
from shared.events.policy import InstanceRecord, InstanceState
from tests.unit.policy.front import HANDOUT, Front
from tests.unit.policy.stories import NOON


class Gateway:
    """Keys made on the spot, and the request that they make."""

    def __init__(self, name: str = "gateway-1") -> None:
        self.name = name
        self.signing, self.sealing = SigningKey.generate(), SealingKey.generate()

    def request(self, token: str, **other: Any) -> dict[str, Any]:
        return {
            "token": token,
            "name": self.name,
            "signing_key": self.signing.verify_key.to_base64(),
            "sealing_key": self.sealing.public.to_base64(),
            "sealing_key_signature": certify_sealing_key(self.signing, self.sealing.public),
        } | other


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Front:
    # The application outlives a test: what was refused in another one must not count here.
    fresh, admits = RefusalAllowance(), RefusalAllowance.admits
    monkeypatch.setattr(RefusalAllowance, "admits", lambda _, enrolment: admits(fresh, enrolment))
    return Front()


@pytest.fixture
async def promise(front: Front) -> Mapping[str, Any]:
    return await front.create("enrolments", name="gateway-1", allowed_servers=["*"], labels={"env": "prod"})


async def enrol(front: Front, gateway: Gateway, token: str, *, expect: int = 200, **other: Any) -> Any:
    return await front.ask("POST", "/v1/enrol", gateway.request(token, **other), token="", expect=expect)


async def test_a_token_is_shown_when_it_is_made_and_never_again(front: Front, promise: Mapping[str, Any]) -> None:
    token = promise["token"]
    assert token.startswith(TOKEN_PREFIX)
    for path in ("/v1/enrolments", "/v1/enrolments/gateway-1", f"/v1/enrolments/{promise['entity_id']}"):
        shown = (await front.send("GET", path)).body.decode()
        assert "gateway-1" in shown
        assert token not in shown
        assert "token" not in shown
    assert all(token not in event.model_dump_json() for event in front.world.ledger.events)
    assert all(token not in repr(one) for one in front.world.ledger.enrolments.values())


async def test_an_instance_is_told_whom_to_believe_and_where_everybody_is(
    front: Front, promise: Mapping[str, Any]
) -> None:
    answer = await enrol(front, Gateway(), promise["token"])
    assert (answer["labels"], answer["allowed_servers"]) == ({"env": "prod"}, ["*"])
    assert (answer["policy_key"], answer["resolver_keys"]) == (HANDOUT.policy_key, list(HANDOUT.resolver_keys))
    assert answer["bootstrap"] == {"broker": "broker:9092", "resolver": "https://resolver-1,https://resolver-2"}
    (instance,) = (await front.ask("GET", "/v1/instances"))["items"]
    assert (instance["id"], instance["state"]) == (answer["instance_id"], "active")
    shown = await front.ask("GET", "/v1/enrolments/gateway-1")
    assert (shown["state"], shown["instance_id"]) == ("used", instance["id"])


async def test_an_answer_that_got_lost_is_given_again_and_nobody_is_let_in_twice(
    front: Front, promise: Mapping[str, Any]
) -> None:
    gateway = Gateway()
    first = await enrol(front, gateway, promise["token"])
    commits = front.world.ledger.seq
    assert await enrol(front, gateway, promise["token"]) == first
    assert front.world.ledger.seq == commits


async def test_every_token_that_is_not_good_gets_the_same_answer(front: Front, promise: Mapping[str, Any]) -> None:
    await enrol(front, Gateway(), promise["token"])
    expired = await front.create("enrolments", name="late", expires_in_s=10)
    front.world.ledger.now = NOON + timedelta(seconds=10)
    answers = set()
    for token in (promise["token"], expired["token"], "kfe_" + "x" * 43, "x"):
        reply = await front.send("POST", "/v1/enrol", Gateway().request(token), token="")
        answers.add((reply.status, reply.body))
    ((status, body),) = answers
    assert status == 401
    assert b"unknown, used or expired" in body


async def test_a_bad_token_is_refused_without_the_lock_that_changes_wait_for(front: Front) -> None:
    async with front.world.ledger.open(None):  # type: ignore[arg-type]
        await enrol(front, Gateway(), "kfe_" + "x" * 43, expect=401)


async def test_a_sealing_key_that_the_signing_key_did_not_certify_is_refused(
    front: Front, promise: Mapping[str, Any]
) -> None:
    """Who owns the sealing key reads what is sealed: it must be the instance's own."""
    gateway, other = Gateway(), Gateway()
    foreign = certify_sealing_key(other.signing, gateway.sealing.public)
    problem = await enrol(front, gateway, promise["token"], expect=400, sealing_key_signature=foreign)
    assert "not certified" in problem["detail"]
    assert (await front.ask("GET", "/v1/enrolments/gateway-1"))["state"] == "open"


async def test_a_token_is_for_the_instance_that_was_named(front: Front, promise: Mapping[str, Any]) -> None:
    problem = await enrol(front, Gateway("gateway-2"), promise["token"], expect=400)
    assert "another name" in problem["detail"]
    await enrol(front, Gateway(), promise["token"])


async def test_a_key_belongs_to_one_instance(front: Front, promise: Mapping[str, Any]) -> None:
    gateway = Gateway()
    await enrol(front, gateway, promise["token"])
    second = await front.create("enrolments", name="gateway-2")
    problem = await enrol(front, gateway, second["token"], expect=409, name="gateway-2")
    assert "Another instance has that key" in problem["detail"]


@pytest.mark.parametrize("member", ["labels", "allowed_servers", "state"])
async def test_what_an_instance_says_of_itself_beyond_its_keys_is_refused(
    front: Front, promise: Mapping[str, Any], member: str
) -> None:
    await enrol(front, Gateway(), promise["token"], expect=400, **{member: ["*"]})


async def test_a_name_waits_for_one_token_at_a_time_and_a_withdrawn_one_frees_it(
    front: Front, promise: Mapping[str, Any]
) -> None:
    problem = await front.ask("POST", "/v1/enrolments", {"name": "gateway-1"}, expect=409)
    assert "open enrolment" in problem["detail"]
    gone = await front.ask("DELETE", "/v1/enrolments/gateway-1")
    assert gone["entity_id"] == promise["entity_id"]
    await enrol(front, Gateway(), promise["token"], expect=401)
    await front.create("enrolments", name="gateway-1")
    await front.ask("DELETE", "/v1/enrolments/absent", expect=404)
    await front.ask("GET", "/v1/enrolments/absent", expect=404)


async def test_an_expired_promise_does_not_block_its_name(front: Front, promise: Mapping[str, Any]) -> None:
    front.world.ledger.now = NOON + timedelta(hours=1)
    assert (await front.ask("GET", "/v1/enrolments/gateway-1"))["state"] == "expired"
    again = await front.create("enrolments", name="gateway-1")
    assert again["token"] != promise["token"]


async def test_the_name_of_a_living_instance_is_taken(front: Front, promise: Mapping[str, Any]) -> None:
    await enrol(front, Gateway(), promise["token"])
    problem = await front.ask("POST", "/v1/enrolments", {"name": "gateway-1"}, expect=409)
    assert "instance by that name" in problem["detail"]


async def test_banning_ends_all_that_rests_on_an_instance_and_allowing_nothing(
    front: Front, promise: Mapping[str, Any]
) -> None:
    instance_id = (await enrol(front, Gateway(), promise["token"]))["instance_id"]
    banned = await front.ask("POST", "/v1/instances/gateway-1/ban")
    assert (banned["entity"]["state"], banned["ended"]) == ("banned", [instance_id])
    again = await front.ask("POST", "/v1/instances/gateway-1/ban")
    assert again["seq"] == banned["seq"]
    allowed = await front.ask("POST", f"/v1/instances/{instance_id}/allow")
    assert (allowed["entity"]["state"], allowed["ended"]) == ("active", [])
    kept = front.world.ledger.kept[instance_id].record
    assert isinstance(kept, InstanceRecord)
    assert kept.state is InstanceState.ACTIVE
    await front.ask("POST", "/v1/instances/absent/ban", expect=404)


async def test_allowed_servers_are_named_and_shown_by_name_while_they_live(front: Front) -> None:
    server = await front.world.server()
    made = await front.create("enrolments", name="gateway-1", allowed_servers=["patients-db", server.id])
    assert made["entity"]["allowed_servers"] == [server.id]
    assert made["entity"]["server_names"] == ["patients-db"]
    problem = await front.ask("POST", "/v1/enrolments", {"name": "x", "allowed_servers": ["absent"]}, expect=400)
    assert "allowed_servers" in problem["detail"]
    await front.ask("DELETE", "/v1/servers/patients-db")
    assert (await front.ask("GET", "/v1/enrolments/gateway-1"))["server_names"] == []


async def test_every_server_beside_named_ones_is_every_server(front: Front) -> None:
    made = await front.create("enrolments", name="gateway-1", allowed_servers=["*", "absent"])
    assert (made["entity"]["allowed_servers"], made["entity"]["server_names"]) == (["*"], ["*"])


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 1e99, "x"])
async def test_a_token_waits_for_a_day_at_most(front: Front, seconds: Any) -> None:
    await front.ask("POST", "/v1/enrolments", {"name": "gateway-1", "expires_in_s": seconds}, expect=400)


async def test_a_request_that_is_none_never_quotes_its_token(front: Front) -> None:
    good = Gateway().request("kfe_hunter2")
    for broken in (
        good | {"signing_key": "A" * 42},
        good | {"sealing_key": "?" * 43},
        good | {"name": "\x00"},
        good | {"token": "t" * 5_000},
        {"token": "kfe_hunter2"},
        [good],
    ):
        reply = await front.send("POST", "/v1/enrol", json.dumps(broken).encode(), token="")
        assert reply.status in {400, 413}
        assert b"hunter2" not in reply.body


def refusals(front: Front) -> list[tuple[str, str]]:
    """What is on record of tokens that were refused: the enrolment and its name."""
    return [(one.entity_id, one.entity_name) for one in front.world.ledger.events if one.action is PolicyAction.REFUSED]


async def test_a_refused_token_is_on_record_and_changes_nothing(front: Front, promise: Mapping[str, Any]) -> None:
    await enrol(front, Gateway(), promise["token"])
    before = front.world.ledger.events[-1]
    await enrol(front, Gateway(), promise["token"], expect=401)
    assert refusals(front) == [(promise["entity_id"], "gateway-1")]
    told = front.world.ledger.events[-1]
    assert (told.seq, told.ended, told.actor.subject) == (before.seq + 1, (), "enrolment")
    assert promise["token"] not in told.model_dump_json()


async def test_a_flood_makes_few_records_and_made_up_tokens_hide_no_stolen_one(
    front: Front, promise: Mapping[str, Any]
) -> None:
    await enrol(front, Gateway(), promise["token"])
    for number in range(3 * MOST):
        await enrol(front, Gateway(), f"{TOKEN_PREFIX}{number}", expect=401)
    assert refusals(front) == [], "of a token that nobody promised there is nothing to say"
    for _ in range(3 * MOST):
        await enrol(front, Gateway(), promise["token"], expect=401)
    assert refusals(front) == [(promise["entity_id"], "gateway-1")] * MOST


async def test_who_comes_too_late_is_on_record(front: Front, promise: Mapping[str, Any]) -> None:
    front.world.ledger.now = NOON + timedelta(days=1)
    await enrol(front, Gateway(), promise["token"], expect=401)
    assert refusals(front) == [(promise["entity_id"], "gateway-1")]


async def test_a_request_that_proves_no_keys_is_refused_before_any_record(
    front: Front, promise: Mapping[str, Any]
) -> None:
    await enrol(front, Gateway(), promise["token"], expect=400, sealing_key=Gateway().sealing.public.to_base64())
    assert refusals(front) == []


def promised(name: str) -> Enrolment:
    record = EnrolmentRecord(id=f"enrolment/{name}", name=name, token_sha256="", created_at=NOON, expires_at=NOON)
    return Enrolment(record=record, instance_id=None, seq=1, event_id="change/1")


def test_the_allowance_is_for_each_enrolment_and_comes_back_with_time() -> None:
    moment = 0.0
    allowance, one = RefusalAllowance(most=2, window_s=60, clock=lambda: moment), promised("one")
    assert [allowance.admits(one) for _ in range(3)] == [True, True, False]
    assert [allowance.admits(None) for _ in range(3)] == [True, True, False]
    assert allowance.admits(promised("two"))
    moment = 59.9
    assert not allowance.admits(one)
    moment = 60.1
    assert [allowance.admits(one) for _ in range(3)] == [True, True, False]


def test_the_allowance_forgets_enrolments_that_it_said_nothing_of_lately() -> None:
    moment = 0.0
    allowance = RefusalAllowance(clock=lambda: moment)
    for number in range(1000):
        allowance.admits(promised(str(number)))
    moment = 61.0
    allowance.admits(promised("new"))
    assert set(allowance._said) == {"enrolment/new"}
