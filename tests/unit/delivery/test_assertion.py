"""An assertion proves one request of one instance, once, for a minute at most; and nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto import SigningKey, VerifyKey
from shared.crypto.framing import to_base64url
from shared.delivery import AssertionRefusal, AssertionRefused, ReplayWindow, Request, make_assertion, verify_assertion
from shared.errors import AssertionInvalid
from tests.thoroughness import examples

NOW = 1_800_000_000.25
KEY = SigningKey.generate()
OTHER = SigningKey.generate()
KEYS: dict[str, VerifyKey] = {"instance/1": KEY.verify_key, "instance/2": OTHER.verify_key}
REQUEST = Request("POST", "/v1/resolve", "https://resolver.example", b'{"server":"patients-db"}', "the.subjects.token")


def make(request: Request = REQUEST, *, key: SigningKey = KEY, instance_id: str = "instance/1", **times: Any) -> str:
    return make_assertion(request, key=key, instance_id=instance_id, **({"now": NOW} | times))


def verify(assertion: str, request: Request = REQUEST, *, now: float = NOW, seen: ReplayWindow | None = None) -> str:
    window = ReplayWindow() if seen is None else seen
    return verify_assertion(assertion, request, key_of=KEYS.get, seen=window, now=now).instance_id


def refusal(assertion: str, request: Request = REQUEST, *, now: float = NOW) -> AssertionRefusal:
    with pytest.raises(AssertionRefused) as refused:
        verify(assertion, request, now=now)
    assert refused.value.detail == AssertionInvalid().detail
    return refused.value.reason


def signed(header: dict[str, Any], claims: dict[str, Any], key: SigningKey = KEY) -> str:
    """Sign anything: what a careless or hostile instance could send."""
    unsigned = f"{to_base64url(json.dumps(header).encode())}.{to_base64url(json.dumps(claims).encode())}"
    return f"{unsigned}.{to_base64url(key.sign_bytes(unsigned.encode()))}"


HEADER = {"alg": "EdDSA", "typ": "keyfob-assertion+jwt", "kid": "instance/1"}
CLAIMS = {**REQUEST.claims(), "iat": int(NOW), "exp": int(NOW) + 30, "jti": "j1"}


def test_an_instance_proves_its_request() -> None:
    assertion = make()
    verified = verify_assertion(assertion, REQUEST, key_of=KEYS.get, seen=ReplayWindow(), now=NOW)
    assert verified.instance_id == "instance/1"
    assert verified.raw == assertion.encode()
    assert (verified.issued_at, verified.expires_at) == (int(NOW), int(NOW) + 30)


def test_the_baseline_of_the_forgeries_below_is_accepted() -> None:
    assert verify(signed(HEADER, CLAIMS)) == "instance/1"
    assert verify(signed(HEADER | {"alg": "Ed25519"}, CLAIMS)) == "instance/1"


@given(st.text(max_size=8), st.text(max_size=20), st.text(max_size=20), st.binary(max_size=64), st.text(max_size=40))
def test_whatever_the_request_is_it_is_proved(method: str, target: str, audience: str, body: bytes, token: str) -> None:
    request = Request(method, target, audience, body, token)
    assert verify(make(request), request) == "instance/1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"body": b'{"server":"billing-db"}'}, AssertionRefusal.REQUEST),
        ({"body": b""}, AssertionRefusal.REQUEST),
        ({"target": "/v1/resolve?x=1"}, AssertionRefusal.REQUEST),
        ({"target": "/v1/resolve/"}, AssertionRefusal.REQUEST),
        ({"method": "PUT"}, AssertionRefusal.REQUEST),
        ({"method": "post"}, AssertionRefusal.REQUEST),
        ({"audience": "https://another.example"}, AssertionRefusal.REQUEST),
        ({"token": "another.subjects.token"}, AssertionRefusal.TOKEN),
        ({"token": ""}, AssertionRefusal.TOKEN),
        ({"token": "\ud800"}, AssertionRefusal.TOKEN),
    ],
)
def test_it_does_not_serve_another_request(change: dict[str, Any], reason: AssertionRefusal) -> None:
    assert refusal(make(), replace(REQUEST, **change)) == reason


@given(st.data())
@settings(max_examples=examples(200))
def test_a_flipped_bit_anywhere_is_refused_with_the_same_words(data: st.DataObject) -> None:
    assertion = bytearray(make(assertion_id="fixed").encode())
    bit = data.draw(st.integers(0, len(assertion) * 8 - 1))
    assertion[bit // 8] ^= 1 << bit % 8
    refusal(assertion.decode("latin-1"))


def test_an_instance_does_not_speak_for_another() -> None:
    assert refusal(make(instance_id="instance/2")) == AssertionRefusal.SIGNATURE
    assert refusal(make(key=OTHER)) == AssertionRefusal.SIGNATURE


def test_an_unknown_or_banned_instance_is_refused() -> None:
    assert refusal(make(instance_id="instance/9")) == AssertionRefusal.UNKNOWN_INSTANCE


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "alg": "none"},
        {**HEADER, "alg": "HS256"},
        {**HEADER, "alg": ["EdDSA"]},
        {**HEADER, "typ": "JWT"},
        {**HEADER, "typ": None},
        {**HEADER, "kid": 7},
        {**HEADER, "kid": ["instance/1"]},
        {**HEADER, "crit": ["x"]},
        {**HEADER, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": OTHER.verify_key.to_base64()}},
        {"alg": "EdDSA", "kid": "instance/1"},
        {},
    ],
)
def test_another_header_is_refused_even_if_signed(header: dict[str, Any]) -> None:
    assert refusal(signed(header, CLAIMS)) == AssertionRefusal.MALFORMED


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(NOW) + 61, "iat": int(NOW)}, AssertionRefusal.LIFETIME),
        ({"exp": 10**15}, AssertionRefusal.LIFETIME),
        ({"exp": int(NOW), "iat": int(NOW) - 30}, AssertionRefusal.EXPIRED),
        ({"exp": int(NOW) + 41, "iat": int(NOW) + 11}, AssertionRefusal.FUTURE),
        ({"exp": True}, AssertionRefusal.MALFORMED),
        ({"exp": NOW + 10}, AssertionRefusal.MALFORMED),
        ({"iat": None}, AssertionRefusal.MALFORMED),
        ({"iat": "1"}, AssertionRefusal.MALFORMED),
        ({"jti": ""}, AssertionRefusal.MALFORMED),
        ({"jti": 7}, AssertionRefusal.MALFORMED),
        ({"jti": "x" * 65}, AssertionRefusal.MALFORMED),
        ({"aud": ["https://resolver.example"]}, AssertionRefusal.REQUEST),
        ({"bh": None}, AssertionRefusal.REQUEST),
        ({"htm": "*"}, AssertionRefusal.REQUEST),
        ({"ath": None}, AssertionRefusal.TOKEN),
    ],
)
def test_wrong_claims_are_refused_even_if_signed(claims: dict[str, Any], reason: AssertionRefusal) -> None:
    assert refusal(signed(HEADER, CLAIMS | claims)) == reason


def test_an_instances_clock_may_run_a_little_ahead() -> None:
    assert verify(make(now=NOW + 10)) == "instance/1"
    assert refusal(make(now=NOW + 12)) == AssertionRefusal.FUTURE


def test_it_ends_with_its_lifetime() -> None:
    assertion = make(lifetime_s=60)
    assert verify(assertion, now=int(NOW) + 59.9) == "instance/1"
    assert refusal(assertion, now=int(NOW) + 60) == AssertionRefusal.EXPIRED


@pytest.mark.parametrize(
    "assertion",
    ["", ".", "..", "a.b.c", "e30.e30", "e30.e30.e30.e30", "bnVsbA.e30.e30", "\u00e9.e30.", "x" * 5000, "\ud800.."],
)
def test_text_that_is_no_assertion_is_refused(assertion: str) -> None:
    assert refusal(assertion) == AssertionRefusal.MALFORMED


def test_claims_that_are_no_object_are_refused() -> None:
    assert refusal(signed(HEADER, [])) == AssertionRefusal.MALFORMED  # type: ignore[arg-type]


def test_nothing_is_remembered_for_what_was_refused() -> None:
    seen = ReplayWindow()
    for assertion in (make(key=OTHER), make(lifetime_s=61)):
        with pytest.raises(AssertionRefused):
            verify(assertion, seen=seen)
    assert len(seen) == 0


def test_a_second_sight_is_refused() -> None:
    seen, assertion = ReplayWindow(), make()
    verify(assertion, seen=seen)
    with pytest.raises(AssertionRefused) as refused:
        verify(assertion, seen=seen)
    assert refused.value.reason == AssertionRefusal.REPLAYED
    verify(make(), seen=seen)


def test_a_request_shows_neither_its_token_nor_its_body() -> None:
    assert repr(REQUEST) == "Request(POST https://resolver.example/v1/resolve)"


def test_a_signature_made_for_another_use_is_no_assertion() -> None:
    unsigned = make().rpartition(".")[0]
    signature = KEY.sign(unsigned.encode())
    assert refusal(f"{unsigned}.{to_base64url(signature)}") == AssertionRefusal.SIGNATURE
