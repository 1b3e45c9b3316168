"""Every forged request is refused, and on record: who had signed it if anybody did, and what was wrong with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from services.resolver.refusals import MOST_IN_WINDOW
from shared.crypto.signing import SigningKey
from shared.delivery import Request, make_assertion
from shared.delivery.assertion import assertion_digest
from shared.events.access import Phase
from tests.fakes.estate import InstanceIdentity
from tests.fakes.gateway import TARGET, Asked
from tests.fakes.resolving import AUDIENCE, Bench

ALIEN = SigningKey.generate()
Forge = Callable[[Bench, Asked], Asked]


def asserted(bench: Bench, asked: Asked, **more: object) -> Asked:
    """The same question with an assertion that the instance made in another way."""
    token = dict(asked.headers)["Authorization"].removeprefix("Bearer ")
    fields = {"method": "POST", "target": TARGET, "audience": AUDIENCE, "body": asked.body, "token": token}
    named = {name: more.pop(name) for name in list(more) if name in fields}
    identity = bench.gateway.identity
    ordinary = {"key": identity.signing, "instance_id": identity.id}
    made = make_assertion(Request(**(fields | named)), **(ordinary | more))  # type: ignore[arg-type]
    return shown(asked, made)


def shown(asked: Asked, assertion: str) -> Asked:
    headers = dict(asked.headers) | {"Keyfob-Assertion": assertion}
    return replace(asked, assertion=assertion, headers=tuple(headers.items()))


def swapped_body(bench: Bench, asked: Asked) -> Asked:
    return replace(asked, body=asked.body.replace(b"patients-db", b"billing-db!"))


def swapped_token(bench: Bench, asked: Asked) -> Asked:
    headers = dict(asked.headers) | {"Authorization": f"Bearer {bench.token(subject='somebody-else')}"}
    return replace(asked, headers=tuple(headers.items()))


FORGERIES: dict[str, tuple[Forge, str, bool]] = {
    "another's signature": (lambda bench, asked: asserted(bench, asked, key=ALIEN), "bad-signature", False),
    "another's name": (lambda bench, asked: asserted(bench, asked, instance_id="i/x"), "unknown-instance", False),
    "cut": (lambda bench, asked: shown(asked, asked.assertion[:-6]), "bad-signature", False),
    "cut to two parts": (lambda bench, asked: shown(asked, asked.assertion.rpartition(".")[0]), "malformed", False),
    "an answer shown back": (lambda bench, asked: shown(asked, '{"v":1,"kid":"0"}'), "malformed", False),
    "a swapped body": (swapped_body, "another-request", True),
    "a swapped token": (swapped_token, "another-token", True),
    "for another resolver": (lambda bench, asked: asserted(bench, asked, audience="http://x"), "another-request", True),
    "a clock an hour behind": (lambda bench, asked: asserted(bench, asked, now=time.time() - 3600), "expired", True),
    "a clock a minute ahead": (
        lambda bench, asked: asserted(bench, asked, now=time.time() + 60),
        "issued-in-the-future",
        True,
    ),
    "a long life": (lambda bench, asked: asserted(bench, asked, lifetime_s=61), "lifetime-too-long", True),
}


@pytest.mark.parametrize("what", FORGERIES)
async def test_a_forged_request_is_refused_in_the_same_words_and_recorded(bench: Bench, what: str) -> None:
    forge, reason, signed = FORGERIES[what]
    reply = await bench.gateway.send(forge(bench, bench.gateway.question(bench.token())))
    nobody = await bench.gateway.send(shown(bench.gateway.question(bench.token()), "nonsense"))
    assert (reply.status, reply.body) == (nobody.status, nobody.body)
    entry = bench.log.entries[0]
    assert (entry.phase, entry.reason) == (Phase.REFUSED, f"assertion-invalid:{reason}")
    assert entry.instance_id == (bench.gateway.identity.id if signed else None)
    assert (entry.assertion != "") == signed
    assert entry.items == ()
    assert bench.vault.handed_out == []


async def test_a_replay_names_the_same_assertion_as_the_release(bench: Bench) -> None:
    question = bench.gateway.question(bench.token())
    for status in (200, 401):
        assert (await bench.gateway.send(question)).status == status
    released, refused = bench.log.entries[0], bench.log.entries[-1]
    assert (refused.reason, refused.instance_id) == ("assertion-invalid:replayed", bench.gateway.identity.id)
    assert refused.assertion == released.assertion != ""
    assert refused.resolution_id != released.resolution_id


async def test_what_records_call_an_assertion_is_its_instances_own(bench: Bench) -> None:
    await bench.gateway.resolve(bench.token())
    await bench.gateway.resolve(bench.token())
    named = [entry.assertion for entry in bench.log.entries if entry.phase is Phase.AUTHORISED]
    assert len(set(named)) == 2
    assert {len(one) for one in named} == {64}
    assert assertion_digest("instance/1", "j") != assertion_digest("instance/2", "j")
    assert assertion_digest("instance/1", "23") != assertion_digest("instance/12", "3")


async def test_a_flood_of_strangers_makes_few_records_and_hides_nobody_else(bench: Bench) -> None:
    identity, bench.gateway.identity = bench.gateway.identity, InstanceIdentity("instance/unknown")
    for _ in range(10 * MOST_IN_WINDOW):
        assert (await bench.gateway.ask(bench.token())).status == 401
    assert len(bench.log.entries) == MOST_IN_WINDOW
    bench.gateway.identity = identity
    assert (await bench.gateway.ask(bench.token())).status == 200
    assert (await bench.gateway.ask("no.real.token")).status == 401
    assert bench.log.entries[-1].reason.startswith("token-invalid:")
    bench.resolver.budget.close()
    told = bench.log.entries[-1]
    assert (told.reason, told.unrecorded) == ("assertion-invalid:unknown-instance", 9 * MOST_IN_WINDOW - 1)


async def test_a_flood_of_bad_tokens_at_a_gateway_is_bounded_too(bench: Bench) -> None:
    for _ in range(10 * MOST_IN_WINDOW):
        assert (await bench.gateway.ask("no.real.token")).status == 401
    assert len(bench.log.entries) == MOST_IN_WINDOW
    assert {entry.instance_id for entry in bench.log.entries} == {bench.gateway.identity.id}


async def test_what_a_person_is_refused_always_has_a_record_of_its_own(bench: Bench) -> None:
    for _ in range(2 * MOST_IN_WINDOW):
        assert (await bench.gateway.ask(bench.token(), server="nothing-by-that-name")).status == 404
    assert len(bench.log.entries) == 2 * MOST_IN_WINDOW
