"""What somebody makes out of genuine pieces: cut, mixed, reflected, put to another use, out of time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.bus.signatures import RECORD_DOMAIN, record_verifies
from shared.crypto import SealingKey, SigningKey, VerifyKey
from shared.crypto.framing import to_base64url
from shared.delivery import (
    AssertionRefused,
    ReplayWindow,
    Request,
    certify_sealing_key,
    make_assertion,
    open_answer,
    request_hash,
    seal_answer,
    verify_assertion,
    verify_certificate,
)
from shared.delivery.envelope import ANSWER_DOMAIN
from shared.delivery.receipts import RECEIPT_DOMAIN
from shared.errors import SealInvalid, SignatureInvalid
from tests.thoroughness import examples

NOW = 1_800_000_000.5
KEY, RESOLVER, SEALING = SigningKey.generate(), SigningKey.generate(), SealingKey.generate()
KEYS: dict[str, VerifyKey] = {"instance/1": KEY.verify_key}
REQUEST = Request("POST", "/v1/resolve", "https://resolver.example", b'{"server":"patients-db"}', "the.subjects.token")
HASH = request_hash(b"assertion", b"body")


def made(request: Request = REQUEST, **more: Any) -> str:
    return make_assertion(request, key=KEY, instance_id="instance/1", **({"now": NOW} | more))


def accepted(assertion: str, request: Request = REQUEST, *, now: float = NOW) -> bool:
    try:
        verify_assertion(assertion, request, key_of=KEYS.get, seen=ReplayWindow(), now=now)
    except AssertionRefused:
        return False
    return True


def answer(payload: bytes, *, hashed: bytes = HASH, instance_id: str = "instance/1") -> dict[str, Any]:
    sealed = seal_answer(
        payload,
        instance_id=instance_id,
        instance_hpke_public=SEALING.public,
        resolver_signing_key=RESOLVER,
        request_hash=hashed,
    )
    return dict(json.loads(sealed))


def opens(envelope: bytes) -> bool:
    try:
        open_answer(
            envelope,
            instance_id="instance/1",
            instance_hpke_key=SEALING,
            resolver_keys=[RESOLVER.verify_key],
            request_hash=HASH,
        )
    except (SignatureInvalid, SealInvalid):
        return False
    return True


ASSERTION, ANSWER = made(), json.dumps(answer(b"payload")).encode()


def test_the_genuine_pieces_are_accepted() -> None:
    assert accepted(ASSERTION)
    assert opens(ANSWER)


@given(st.integers(0, len(ASSERTION) - 1))
def test_an_assertion_cut_anywhere_is_refused(end: int) -> None:
    assert not accepted(ASSERTION[:end])
    assert not accepted(ASSERTION[end + 1 :])


@given(st.integers(0, len(ANSWER) - 1))
def test_an_answer_cut_anywhere_is_refused(end: int) -> None:
    assert not opens(ANSWER[:end])
    assert not opens(ANSWER[end + 1 :])


@given(st.tuples(*[st.booleans()] * 3))
def test_assertions_of_two_requests_do_not_mix(which: tuple[bool, bool, bool]) -> None:
    assume(len(set(which)) > 1)
    other = Request("POST", "/v1/resolve", "https://resolver.example", b'{"server":"billing-db"}', "another.token")
    pieces = (made().split("."), made(other).split("."))
    mixed = ".".join(pieces[taken][place] for place, taken in enumerate(which))
    # Headers are alike, so what decides is that claims and signature belong together.
    genuine = which[1] == which[2]
    assert accepted(mixed, other if which[1] else REQUEST) == genuine
    assert not accepted(mixed, REQUEST if which[1] else other)


@given(st.tuples(*[st.booleans()] * 2), st.sampled_from(["request", "instance"]))
def test_answers_to_two_requests_do_not_mix(which: tuple[bool, bool], differing: str) -> None:
    changed: dict[str, Any] = {"hashed": bytes(32)} if differing == "request" else {"instance_id": "instance/2"}
    both = answer(b"mine"), answer(b"theirs", **changed)
    mixed = both[0] | {"sealed": both[which[0]]["sealed"], "signature": both[which[1]]["signature"]}
    assert opens(json.dumps(mixed).encode()) == (which == (False, False))


def test_a_reflected_answer_is_no_assertion_and_a_reflected_assertion_no_answer() -> None:
    assert not accepted(ANSWER.decode())
    assert not opens(ASSERTION.encode())
    # Even an instance that had pinned its own key would not take its own signature for a resolver's.
    unsigned, _, signature = ASSERTION.rpartition(".")
    wire = {"v": 1, "kid": KEY.key_id, "sealed": to_base64url(unsigned.encode()), "signature": signature}
    with pytest.raises(SignatureInvalid):
        open_answer(
            json.dumps(wire).encode(),
            instance_id="instance/1",
            instance_hpke_key=SEALING,
            resolver_keys=[RESOLVER.verify_key, KEY.verify_key],
            request_hash=HASH,
        )


Use = Callable[[bytes], None]


def as_certificate(signature: bytes) -> None:
    verify_certificate(to_base64url(signature), signing_key=KEY.verify_key, sealing_key=SEALING.public)


def as_record(signature: bytes) -> None:
    if not record_verifies(KEY.verify_key, signature, topic="t", type_="y", key="k", payload=SEALING.public.raw):
        raise SignatureInvalid


def as_receipt(signature: bytes) -> None:
    KEY.verify_key.verify(signature, RECEIPT_DOMAIN, SEALING.public.raw)


def as_answer(signature: bytes) -> None:
    KEY.verify_key.verify(signature, ANSWER_DOMAIN, b"instance/1", HASH, SEALING.public.raw)


SIGNATURES: dict[str, bytes] = {
    "certificate": KEY.sign(b"keyfob/sealing-key/1", SEALING.public.raw),
    "record": KEY.sign(RECORD_DOMAIN, b"t", b"y", b"k", SEALING.public.raw),
    "receipt": KEY.sign(RECEIPT_DOMAIN, SEALING.public.raw),
    "answer": KEY.sign(ANSWER_DOMAIN, b"instance/1", HASH, SEALING.public.raw),
    "bare": KEY.sign_bytes(SEALING.public.raw),
}
USES: dict[str, Use] = {
    "certificate": as_certificate,
    "record": as_record,
    "receipt": as_receipt,
    "answer": as_answer,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("made_for", SIGNATURES)
def test_a_signature_made_for_one_use_serves_no_other(made_for: str, use: str) -> None:
    if made_for == use:
        USES[use](SIGNATURES[made_for])
    else:
        with pytest.raises(SignatureInvalid):
            USES[use](SIGNATURES[made_for])


@pytest.mark.parametrize("made_for", SIGNATURES)
def test_no_other_signature_of_the_instance_makes_an_assertion(made_for: str) -> None:
    unsigned = ASSERTION.rpartition(".")[0]
    assert not accepted(f"{unsigned}.{to_base64url(SIGNATURES[made_for])}")


def test_a_certificate_is_the_one_that_the_instance_sends() -> None:
    assert certify_sealing_key(KEY, SEALING.public) == to_base64url(SIGNATURES["certificate"])


NEAR_THE_BOUNDS = st.one_of(st.floats(8, 17), st.floats(-62, -1), st.floats(-120, 120))


@given(skew=NEAR_THE_BOUNDS, lifetime=st.integers(1, 60), travelled=st.floats(0, 5))
@settings(max_examples=examples(300))
def test_a_clock_may_be_ten_seconds_ahead_and_behind_by_the_lifetime(
    skew: float, lifetime: int, travelled: float
) -> None:
    issued = int(NOW + skew)
    arrived = NOW + travelled
    fits = issued <= arrived + 10 and issued + lifetime > arrived
    assert accepted(made(now=NOW + skew, lifetime_s=lifetime), now=arrived) == fits


@given(lifetime=st.integers(61, 10**9), skew=st.floats(-120, 120))
def test_a_long_life_makes_up_for_no_clock(lifetime: int, skew: float) -> None:
    assert not accepted(made(now=NOW + skew, lifetime_s=lifetime))


@given(lifetime=st.integers(-(10**9), 0))
def test_a_life_that_ends_before_it_begins_is_none(lifetime: int) -> None:
    # Such as one from the future that would be over by then: 10 s ahead, and already expired.
    assert not accepted(made(now=NOW + 10, lifetime_s=lifetime), now=NOW + 10.5)
