"""Who may come in by certificate, what they are told, and that a receipt is its own instance's and nobody else's."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from starlette.types import Message, Receive, Scope, Send

from services.resolver.https_only import inbox as inbox_module
from services.resolver.https_only import routes
from shared.bus.cloudevents import decode
from shared.crypto.signing import SigningKey
from shared.delivery.messages import decode_answer
from shared.delivery.receipts import RECEIPT_DOMAIN, Resolvers, receipt_verifies
from shared.events.access import Phase
from shared.events.policy import DeliveryProfile, InstanceState
from shared.events.receipts import GatewayReceipt
from tests.fakes.asgi import Reply
from tests.fakes.gateway import values
from tests.fakes.https_door import INSTANCE, HttpsDoor, heard
from tests.waiting import until

DOORS = ["resolve", "notices", "receipts"]


async def knock(door: HttpsDoor, where: str, *, peer: bytes | None = None) -> Reply:
    match where:
        case "resolve":
            return await door.resolve(peer=peer)
        case "notices":
            return await door.ask("GET", "/v1/notices", peer=peer)
        case _:
            return await door.ask("POST", "/v1/receipts", door.receipt(), peer=peer)


async def test_the_answer_is_what_a_sealed_one_holds(door: HttpsDoor) -> None:
    reply = await door.resolve()
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["cache-control"] == "no-store"
    assert values(decode_answer(reply.body)) == {"DB_URL": b"HOSPITAL-A"}


async def test_its_records_say_by_which_door_it_came(door: HttpsDoor) -> None:
    await door.resolve()
    told = [(one.phase, one.instance_id, one.delivery) for one in door.bench.log.entries]
    https = DeliveryProfile.HTTPS
    assert told == [(Phase.AUTHORISED, INSTANCE, https), (Phase.RELEASED, INSTANCE, https)]
    await door.bench.gateway.resolve(door.bench.token())
    assert door.bench.log.entries[-1].delivery is DeliveryProfile.SEALED


@pytest.mark.parametrize("where", DOORS)
async def test_without_a_certificate_nobody_is_heard(door: HttpsDoor, where: str) -> None:
    reply = await knock(door, where, peer=b"")
    assert reply.status == 401
    assert b"client certificate" in reply.body


@pytest.mark.parametrize("where", DOORS)
async def test_a_certificate_that_names_nobody_is_nobodys(door: HttpsDoor, where: str) -> None:
    other = door.authority.listener().certificate.read_bytes()
    der = base64.b64decode(b"".join(other.splitlines()[1:-1]))
    for peer in (der, b"\x30\x00", b"rubbish"):
        assert (await knock(door, where, peer=peer)).status == 401


@pytest.mark.parametrize("where", DOORS)
async def test_an_instance_that_policy_does_not_know_is_refused(door: HttpsDoor, where: str) -> None:
    stranger = door.certificate("instance/stranger")
    assert (await knock(door, where, peer=stranger)).status == 401


@pytest.mark.parametrize("where", DOORS)
async def test_another_certificate_of_the_same_authority_for_the_same_name_is_refused(
    door: HttpsDoor, where: str
) -> None:
    """Who gets hold of the authority's key gets through the handshake, and no further."""
    forged = door.certificate(INSTANCE)
    assert (await knock(door, where, peer=forged)).status == 401


@pytest.mark.parametrize("where", DOORS)
async def test_a_banned_instance_is_refused_on_a_connection_that_it_had_before(door: HttpsDoor, where: str) -> None:
    await heard(door.feed, door.topic.tick())
    door.bench.estate.again(INSTANCE, state=InstanceState.BANNED)
    door.bench.learn()
    assert (await knock(door, where)).status == 401
    assert door.published == []


@pytest.mark.parametrize("where", DOORS)
async def test_an_instance_that_policy_did_not_sign_is_refused(door: HttpsDoor, where: str) -> None:
    genuine, door.bench.estate.policy_key = door.bench.estate.policy_key, SigningKey.generate()
    forged = door.enrol("forged")
    door.bench.estate.policy_key = genuine
    assert (await knock(door, where, peer=forged)).status == 401


@pytest.mark.parametrize("where", DOORS)
async def test_an_instance_of_the_sealed_profile_does_not_come_in_by_certificate(door: HttpsDoor, where: str) -> None:
    sealed = door.certificate(door.bench.gateway.identity.id)
    assert (await knock(door, where, peer=sealed)).status == 401
    if where == "resolve":
        # By its profile, before any look at a certificate that its record does not even have.
        assert door.bench.reasons() == [(Phase.REFUSED, "assertion-invalid:not-active-in-this-profile")]


async def test_an_instance_of_the_https_profile_does_not_come_in_by_assertion(door: HttpsDoor) -> None:
    door.bench.gateway.identity.id = INSTANCE
    assert (await door.bench.gateway.ask(door.bench.token())).status == 401


@pytest.mark.parametrize("where", DOORS)
async def test_a_header_names_nobody(door: HttpsDoor, where: str) -> None:
    path = {"resolve": "/v1/resolve", "notices": "/v1/notices", "receipts": "/v1/receipts"}[where]
    der = base64.b64encode(door.certificates[INSTANCE]).decode()
    headers = {
        "x_client_cert": der,
        "client_cert": f":{der}:",
        "x_ssl_client_cert": der,
        "x_forwarded_client_cert": der,
    }
    method = "GET" if where == "notices" else "POST"
    assert (await door.ask(method, path, door.receipt(), peer=b"", **headers)).status == 401


async def test_an_instance_banned_while_values_are_read_gets_none(door: HttpsDoor) -> None:
    held = door.bench.log.hold()
    asked = asyncio.create_task(door.resolve())
    await until(lambda: door.bench.log.entries)
    door.bench.estate.again(INSTANCE, state=InstanceState.BANNED)
    door.bench.learn()
    held.set()
    reply = await asked
    assert reply.status in {401, 503}
    assert b"HOSPITAL" not in reply.body
    assert base64.urlsafe_b64encode(b"HOSPITAL-A").rstrip(b"=") not in reply.body


async def test_servers_are_limited_as_for_everybody(door: HttpsDoor) -> None:
    limited = door.enrol("limited", allowed_servers=("server/other",))
    assert (await door.resolve(peer=limited)).status in {403, 404}


@pytest.mark.parametrize("token", ["", "x", "Bearer x"])
async def test_a_certificate_is_no_persons_token(door: HttpsDoor, token: str) -> None:
    wish = {"server": "patients-db"}
    assert (await door.ask("POST", "/v1/resolve", wish, authorization=token)).status == 401


async def test_while_a_replica_knows_nothing_it_calls_nobody_a_stranger(door: HttpsDoor) -> None:
    door.bench.knowledge.staleness = "policy-not-ready"
    assert (await knock(door, "notices")).status == 503
    assert (await knock(door, "receipts")).status == 503


async def test_without_ticks_there_is_no_stream(door: HttpsDoor) -> None:
    assert (await knock(door, "notices")).status == 503


@pytest.mark.parametrize("place", ["x", "-1", "1e3", "\u0661", "9" * 19, "9" * 40, "0x1", "1 2"])
async def test_a_place_that_is_none_is_refused(door: HttpsDoor, place: str) -> None:
    await heard(door.feed, door.topic.tick())
    sent = place.encode().decode("latin-1")
    assert (await door.ask("GET", "/v1/notices", last_event_id=sent)).status == 400


# Receipts


async def post(door: HttpsDoor, **said: object) -> Reply:
    return await door.ask("POST", "/v1/receipts", door.receipt(**said))


async def test_a_receipt_stands_in_the_topic_under_its_instance_with_the_resolvers_word_for_it(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    assert (await post(door, applied_offset=0, dropped_offset=0, released=["s/0/ab"])).status == 204
    (message,) = door.published
    receipt = decode(message, GatewayReceipt)
    assert (receipt.instance_id, message.key, receipt.released) == (INSTANCE, INSTANCE, ("s/0/ab",))
    ours = door.bench.resolver.signing_key
    assert Resolvers({ours.key_id: ours.verify_key}).vouches(message, receipt)
    # It is no instance's own word, whatever key an instance has.
    assert not receipt_verifies(message, receipt, ours.verify_key)
    assert RECEIPT_DOMAIN != inbox_module.ATTESTED_DOMAIN


@pytest.mark.parametrize("member", ["instance_id", "delivery", "profile", "key"])
async def test_a_body_names_no_instance(door: HttpsDoor, member: str) -> None:
    assert (await post(door, **{member: "instance/gateway-1"})).status == 400
    assert door.published == []


async def test_nobody_has_applied_what_was_not_said(door: HttpsDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Believed, it would pass for an answer to every notice to come."""
    monkeypatch.setattr(inbox_module, "REACH_WITHIN_S", 0.01)
    newest = door.topic.tick()
    await heard(door.feed, newest)
    assert (await post(door, applied_offset=newest + 1, dropped_offset=0)).status == 503
    assert (await post(door, applied_offset=newest, dropped_offset=0)).status == 204
    assert len(door.published) == 1


async def test_a_replica_that_is_a_moment_behind_waits(door: HttpsDoor) -> None:
    newest = door.topic.tick()
    await heard(door.feed, newest)
    posting = asyncio.create_task(post(door, applied_offset=newest + 1, dropped_offset=newest + 1))
    await asyncio.sleep(0)
    door.topic.tick()
    assert (await posting).status == 204


@pytest.mark.parametrize(
    "wrong",
    [
        {"dropped_offset": 1, "applied_offset": 0},
        {"applied_offset": -2},
        {"n": -1},
        {"open_leases": -1},
        {"n": 2**63},
        {"applied_offset": 2**63},
        {"open_leases": 2**63},
        {"run": ""},
        {"run": "x" * 300},
        {"released": ["x"] * 1001},
        {"ended": [{"lease_id": "lease/1", "why": "bored", "at": "2026-01-01T00:00:00Z"}]},
        {"at": "yesterday"},
        {"n": "1"},
    ],
)
async def test_what_is_no_receipt_is_refused_without_being_quoted(door: HttpsDoor, wrong: dict[str, object]) -> None:
    reply = await post(door, **wrong)
    assert reply.status == 400
    assert b"bored" not in reply.body
    assert door.published == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff"])
async def test_rubbish_is_refused(door: HttpsDoor, body: bytes) -> None:
    assert (await door.ask("POST", "/v1/receipts", body)).status == 400


async def test_a_body_is_bounded(door: HttpsDoor) -> None:
    assert (await door.ask("POST", "/v1/receipts", b" " * 70_000)).status == 413


async def test_a_body_that_does_not_come_is_not_waited_for(door: HttpsDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "BODY_WITHIN_S", 0.01)
    told: list[Message] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        told.append(await receive())
        told.append(await receive())

    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        return pieces.pop() if pieces else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(_: Message) -> None:
        pass

    await asyncio.wait_for(routes.BodyInTime(app)({"type": "http"}, receive, send), 2)
    assert [one["type"] for one in told] == ["http.request", "http.disconnect"]


async def test_a_receipt_that_is_not_durable_is_not_taken(door: HttpsDoor) -> None:
    door.broker_away = True
    assert (await post(door)).status == 503
    door.broker_away = False
    assert (await post(door)).status == 204


async def test_one_instance_does_not_fill_the_replica_with_receipts_under_way(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    waiting = [asyncio.create_task(post(door, applied_offset=1)) for _ in range(inbox_module.AT_ONCE + 1)]
    done, _ = await asyncio.wait(waiting, timeout=2, return_when=asyncio.FIRST_COMPLETED)
    assert [one.result().status for one in done] == [503]
    door.topic.tick()
    assert sorted(reply.status for reply in await asyncio.gather(*waiting)) == [204] * inbox_module.AT_ONCE + [503]


async def test_only_the_three_routes_are_there(door: HttpsDoor) -> None:
    paths = json.loads((await door.ask("GET", "/openapi.json")).body)["paths"]
    assert set(paths) == {"/v1/resolve", "/v1/notices", "/v1/receipts"}
    for path in ("/v1/keys", "/v1/values", "/v1/explain"):
        assert (await door.ask("GET", path)).status == 404
