"""Who counts as an instance and as an issuer: exactly what policy signed, as it stands now."""

from __future__ import annotations

import asyncio

import pytest

from services.resolver.callers import Instances
from shared import topics
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey
from shared.delivery import Request, certify_sealing_key, make_assertion
from shared.errors import AssertionInvalid
from shared.events.access import Phase
from shared.events.policy import IdpRecord, InstanceState
from tests.fakes.estate import InstanceIdentity
from tests.fakes.gateway import TARGET
from tests.fakes.resolving import AUDIENCE, Bench
from tests.waiting import until


async def status(bench: Bench) -> int:
    return (await bench.gateway.ask(bench.token())).status


async def test_an_unknown_instance_is_not_heard(bench: Bench) -> None:
    bench.gateway.identity = InstanceIdentity("instance/unknown")
    assert await status(bench) == 401
    assert bench.reasons() == [(Phase.REFUSED, "assertion-invalid:unknown-instance")]


async def test_an_instance_without_its_key_is_not_heard(bench: Bench) -> None:
    bench.gateway.identity = InstanceIdentity(bench.gateway.identity.id)
    assert await status(bench) == 401
    assert bench.reasons() == [(Phase.REFUSED, "assertion-invalid:bad-signature")]


async def test_a_banned_instance_is_not_heard_and_heard_again_when_it_is_not(bench: Bench) -> None:
    assert await status(bench) == 200
    bench.estate.again("instance/gateway-1", state=InstanceState.BANNED)
    bench.learn()
    assert await status(bench) == 401
    bench.estate.again("instance/gateway-1", state=InstanceState.ACTIVE)
    bench.learn()
    assert await status(bench) == 200


async def test_an_instance_that_policy_did_not_sign_is_unknown(bench: Bench) -> None:
    bench.estate.policy_key, genuine = SigningKey.generate(), bench.estate.policy_key
    bench.gateway.identity = bench.estate.instance("forged")
    bench.estate.policy_key = genuine
    bench.learn()
    assert await status(bench) == 401


async def test_a_sealing_key_that_the_instance_did_not_certify_is_not_sealed_to(bench: Bench) -> None:
    stranger = SealingKey.generate()
    certificate = certify_sealing_key(SigningKey.generate(), stranger.public)
    bench.estate.again("instance/gateway-1", sealing_key=stranger.public.to_base64(), sealing_certificate=certificate)
    bench.learn()
    assert await status(bench) == 401


async def test_a_replayed_request_is_refused(bench: Bench) -> None:
    question = bench.gateway.question(bench.token())
    assert (await bench.gateway.send(question)).status == 200
    assert (await bench.gateway.send(question)).status == 401
    assert bench.reasons()[-1] == (Phase.REFUSED, "assertion-invalid:replayed")


async def test_keys_are_read_again_when_the_record_changes(bench: Bench) -> None:
    first = bench.gateway.identity
    assert await status(bench) == 200
    bench.gateway.identity = bench.estate.instance("gateway-1")
    bench.learn()
    assert await status(bench) == 200
    bench.gateway.identity = first
    assert await status(bench) == 401


async def test_issuers_are_those_that_policy_names_now(bench: Bench) -> None:
    assert await status(bench) == 200
    bench.estate.end("idp/okta")
    bench.learn()
    assert await status(bench) == 401
    assert bench.reasons()[-1] == (Phase.REFUSED, "token-invalid:untrusted-issuer")
    bench.estate.idp()
    bench.learn()
    assert await status(bench) == 200


async def test_of_two_entries_with_one_issuer_neither_counts(bench: Bench) -> None:
    bench.estate.idp("twin")
    bench.learn()
    assert await status(bench) == 401


async def test_an_issuer_that_policy_did_not_sign_displaces_nobody(bench: Bench) -> None:
    said = {"name": "evil", "issuer": bench.estate.issuer, "jwks_uri": "https://evil.example/jwks"}
    bench.estate.write(IdpRecord, "idp/evil", signed_by=SigningKey.generate(), **said)
    bench.learn()
    assert await status(bench) == 200


async def test_an_issuer_changed_between_proof_and_decision_is_asked_again(bench: Bench) -> None:
    bench.estate.idp("okta", audience="another")
    floor = {"policy": bench.estate.seqs[topics.POLICY]}
    asked = asyncio.create_task(bench.gateway.ask(bench.token(), floor=floor))
    await until(lambda: bench.knowledge.waited_for)
    bench.learn()
    assert (await asked).status == 503
    assert bench.reasons() == [(Phase.REFUSED, "changed-meanwhile")]


async def test_instance_keys_changed_between_proof_and_decision_are_asked_again(bench: Bench) -> None:
    bench.estate.instance("gateway-1")
    floor = {"policy": bench.estate.seqs[topics.POLICY]}
    asked = asyncio.create_task(bench.gateway.ask(bench.token(), floor=floor))
    await until(lambda: bench.knowledge.waited_for)
    bench.learn()
    assert (await asked).status == 503
    assert bench.reasons() == [(Phase.REFUSED, "changed-meanwhile")]


def test_an_assertion_for_another_audience_is_refused(bench: Bench) -> None:
    instances = Instances(lambda _: True)  # type: ignore[arg-type]
    identity = bench.gateway.identity
    elsewhere = Request("POST", TARGET, "http://elsewhere", b"{}", "t")
    assertion = make_assertion(elsewhere, key=identity.signing, instance_id=identity.id)
    with pytest.raises(AssertionInvalid):
        instances.verify(assertion, Request("POST", TARGET, AUDIENCE, b"{}", "t"), bench.knowledge.policy)
