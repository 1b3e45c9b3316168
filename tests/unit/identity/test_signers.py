"""However many tokens name unknown keys, an issuer is asked for its keys at a bounded rate."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey
from structlog.testing import capture_logs

from shared.crypto.framing import to_base64url
from shared.errors import Unavailable
from shared.identity.signers import MOST_KEYS, IssuerKeys, usable_keys
from tests.unit.identity.issuers import EC, ED, JWKS, NOW, RSA, Clock, Issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> IssuerKeys:
    return IssuerKeys(uri=JWKS, fetch=issuer.fetch, clock=clock)


async def test_a_flood_of_unknown_key_ids_costs_one_fetch_in_thirty_seconds(
    keys: IssuerKeys, issuer: Issuer, clock: Clock
) -> None:
    for second in range(90):
        clock.now = NOW + second
        for number in range(50):
            assert await keys.find(f"made-up-{second}-{number}") is None
    assert len(issuer.asked) == 3


async def test_known_keys_go_on_working_during_a_flood(keys: IssuerKeys) -> None:
    for number in range(100):
        assert await keys.find(f"made-up-{number}") is None
        assert await keys.find("rsa") is not None


async def test_those_who_ask_at_the_same_time_share_one_fetch(keys: IssuerKeys, issuer: Issuer) -> None:
    issuer.released.clear()
    asking = [asyncio.create_task(keys.find(kid)) for kid in ["rsa", "ec", "made-up"] * 20]
    await issuer.reached.wait()
    issuer.released.set()
    found = await asyncio.gather(*asking)
    assert [key is not None for key in found] == [True, True, False] * 20
    assert len(issuer.asked) == 1


async def test_one_who_gives_up_does_not_take_the_fetch_from_the_others(keys: IssuerKeys, issuer: Issuer) -> None:
    issuer.released.clear()
    first, second = (asyncio.create_task(keys.find("rsa")) for _ in range(2))
    await issuer.reached.wait()
    first.cancel()
    issuer.released.set()
    assert await second is not None


async def test_a_new_key_is_found_once_the_bound_allows_it(keys: IssuerKeys, issuer: Issuer, clock: Clock) -> None:
    await keys.find("rsa")
    issuer.keys["new"] = RSAKey.generate_key(2048)
    clock.now = NOW + 29
    assert await keys.find("new") is None
    clock.now = NOW + 30
    assert await keys.find("new") is not None


async def test_an_issuer_that_is_away_is_our_trouble_and_not_the_tokens(
    keys: IssuerKeys, issuer: Issuer, clock: Clock
) -> None:
    issuer.failing = True
    for second in range(10):
        clock.now = NOW + second
        with pytest.raises(Unavailable):
            await keys.find("rsa")
    assert len(issuer.asked) == 2
    issuer.failing = False
    clock.now = NOW + 10
    assert await keys.find("rsa") is not None


async def test_why_keys_could_not_be_had_is_in_the_log_and_not_in_the_answer(clock: Clock) -> None:
    async def fetch(_: str) -> Mapping[str, Any]:
        raise Unavailable("The identity provider answered 404 instead of its keys.")

    with capture_logs() as logs, pytest.raises(Unavailable) as refused:
        await IssuerKeys(uri=JWKS, fetch=fetch, clock=clock).find("rsa")
    (line,) = logs
    assert (line["uri"], line["reason"]) == (JWKS, "The identity provider answered 404 instead of its keys.")
    assert "404" not in refused.value.detail


async def test_known_keys_outlive_a_failed_renewal_for_an_hour(keys: IssuerKeys, issuer: Issuer, clock: Clock) -> None:
    await keys.find("rsa")
    issuer.failing = True
    clock.now = NOW + 3599
    assert await keys.find("rsa") is not None
    clock.now = NOW + 3605
    with pytest.raises(Unavailable):
        await keys.find("rsa")


async def test_an_error_that_nobody_expected_keeps_to_the_bound_too(clock: Clock) -> None:
    asked = []

    async def broken(uri: str) -> dict[str, object]:
        asked.append(uri)
        raise KeyError(uri)

    keys = IssuerKeys(uri=JWKS, fetch=broken, clock=clock)
    with pytest.raises(KeyError):
        await keys.find("rsa")
    for _ in range(10):
        with pytest.raises(Unavailable):
            await keys.find("rsa")
    assert len(asked) == 1


async def test_old_keys_are_renewed_behind_the_answer(keys: IssuerKeys, issuer: Issuer, clock: Clock) -> None:
    await keys.find("rsa")
    generation = keys.generation
    del issuer.keys["ec"]
    clock.now = NOW + 301
    assert await keys.find("ec") is not None
    assert keys._fetching is not None
    await keys._fetching
    assert keys.generation is not generation
    assert await keys.find("ec") is None


async def test_the_same_keys_again_are_the_same_generation(keys: IssuerKeys, clock: Clock) -> None:
    await keys.find("rsa")
    generation = keys.generation
    clock.now = NOW + 30
    await keys.find("made-up")
    assert keys.generation is generation


def test_only_public_asymmetric_signing_keys_of_enough_bits_with_an_id_are_used() -> None:
    good = {**RSA.as_dict(private=False), "kid": "good"}
    entries = [
        good,
        {**EC.as_dict(private=False), "kid": "ec", "use": "sig"},
        {**ED.as_dict(private=False), "kid": "ed"},
        {**RSA.as_dict(private=False), "kid": "for-encryption", "use": "enc"},
        {"kty": "RSA", "kid": "small", "e": "AQAB", "n": to_base64url(b"\xc5" * 128)},
        {**OctKey.generate_key(256).as_dict(), "kid": "symmetric"},
        {"kty": "RSA", "kid": "no-modulus", "e": "AQAB"},
        {"kty": "EC", "kid": "no-point", "crv": "P-256"},
        {"kty": ["RSA"], "kid": "listed"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": 7},
        {"kty": "LATTICE", "kid": "unheard-of"},
        {"kid": "nothing"},
        RSA.as_dict(private=False) | {"kid": 7},
        {**EC.as_dict(private=False), "kid": "good"},
        "not an object",
        None,
    ]
    found = usable_keys({"keys": entries})
    assert sorted(found) == ["ec", "ed", "good"]
    assert found["good"].as_dict(private=False)["kty"] == "RSA"


def test_a_set_of_absurd_size_is_read_only_in_part() -> None:
    entry = {**ED.as_dict(private=False)}
    assert len(usable_keys({"keys": [{**entry, "kid": str(number)} for number in range(5000)]})) == MOST_KEYS
