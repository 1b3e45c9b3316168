"""An instance runs a definition only if policy signed it, for this answer: each step of the check, broken by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.gateway.client.resolving import verified_server
from shared import topics
from shared.bus.signatures import record_signer
from shared.crypto.secret import SecretBytes
from shared.crypto.signing import SigningKey
from shared.delivery.messages import Lease, ResolveAnswer, ResolvedField, ResolveRequest, SignedRecord
from shared.errors import Unavailable
from shared.events.definitions import definition_digest
from shared.events.policy import ServerRecord
from tests.fakes.agent_side import teller
from tests.fakes.installation import Allowed, Installation, Reference

TOKEN = "token"
Change = Callable[[Installation, ResolveAnswer], ResolveAnswer]


@pytest.fixture(scope="module")
def installation() -> Installation:
    made = Installation()
    made.define("teller", teller())
    made.define("other", teller("--other"))
    made.tokens[TOKEN] = Allowed("agent", {"hospital": {"DB_URL": Reference("reference/a", b"value")}})
    return made


def answer(installation: Installation) -> ResolveAnswer:
    return installation.decide(TOKEN, ResolveRequest(server="teller"))


def signed_by(key: SigningKey, record: ServerRecord, *, topic: str = topics.POLICY, name: str = "") -> SignedRecord:
    payload = record.to_json()
    key_id, signature = record_signer(key)(topic=topic, type_=record.TYPE, key=name or record.id, payload=payload)
    return SignedRecord(type=record.TYPE, payload=payload, signature=signature, key_id=key_id)


def by_somebody_else(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"server": signed_by(SigningKey.generate(), world.servers["teller"])})


def of_another_topic(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    signed = signed_by(world.policy_key, world.servers["teller"], topic=topics.CATALOG)
    return one.model_copy(update={"server": signed})


def under_another_key(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    signed = signed_by(world.policy_key, world.servers["teller"], name="server/other")
    return one.model_copy(update={"server": signed})


def changed_after_signing(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    evil = world.servers["teller"].model_copy(update={"owner": "mallory"}).to_json()
    return one.model_copy(update={"server": one.server.model_copy(update={"payload": evil})})


def another_type(_: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"server": one.server.model_copy(update={"type": "keyfob.policy.grant.v1"})})


def another_server(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"server": world.sign(world.servers["other"])})


def deleted(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    gone = world.servers["teller"].model_copy(update={"deleted": True})
    return one.model_copy(update={"server": world.sign(gone)})


def digest_of_another_definition(world: Installation, one: ResolveAnswer) -> ResolveAnswer:
    wrong = world.servers["teller"].model_copy(update={"digest": definition_digest(teller("--other"))})
    return one.model_copy(update={"server": world.sign(wrong)})


def decided_on_another_definition(_: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"definition_digest": definition_digest(teller("--other"))})


def a_value_more(_: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"fields": [*one.fields, field("LD_PRELOAD")]})


def a_value_less(_: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"fields": []})


def a_value_twice(_: Installation, one: ResolveAnswer) -> ResolveAnswer:
    return one.model_copy(update={"fields": [*one.fields, field("DB_URL")]})


def field(name: str) -> ResolvedField:
    lease = Lease(id="lease/more", reference_id="reference/a", version="1", expires_at=2e9, rests_on=())
    return ResolvedField(name=name, value=SecretBytes(b"x"), lease=lease)


def test_the_definition_that_policy_signed_is_the_one_that_runs(installation: Installation) -> None:
    assert verified_server(answer(installation), installation.identity).definition == teller()


@pytest.mark.parametrize(
    "change",
    [
        by_somebody_else,
        of_another_topic,
        under_another_key,
        changed_after_signing,
        another_type,
        another_server,
        deleted,
        digest_of_another_definition,
        decided_on_another_definition,
        a_value_more,
        a_value_less,
        a_value_twice,
    ],
)
def test_anything_else_is_refused_in_the_same_words(installation: Installation, change: Change) -> None:
    with pytest.raises(Unavailable) as refused:
        verified_server(change(installation, answer(installation)), installation.identity)
    assert refused.value.detail == "The server's definition did not verify."
