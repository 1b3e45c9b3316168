"""An answer opens only for the instance that asked, for that request, and only from a pinned resolver."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto import SealingKey, SigningKey, seal
from shared.crypto.framing import frame, from_base64url, to_base64url
from shared.delivery import open_answer, request_hash, seal_answer
from shared.delivery.envelope import ANSWER_DOMAIN, LARGEST_ENVELOPE
from shared.errors import SealInvalid, SignatureInvalid
from tests.thoroughness import examples

INSTANCE = SealingKey.generate()
RESOLVER = SigningKey.generate()
EVIL = SigningKey.generate()
HASH = request_hash(b"assertion", b"body")


def sealed(payload: bytes = b"payload", **changes: Any) -> bytes:
    ordinary: dict[str, Any] = {
        "instance_id": "instance/1",
        "instance_hpke_public": INSTANCE.public,
        "resolver_signing_key": RESOLVER,
        "request_hash": HASH,
    }
    return seal_answer(payload, **(ordinary | changes))


def opened(envelope: bytes, **changes: Any) -> bytes:
    ordinary: dict[str, Any] = {
        "instance_id": "instance/1",
        "instance_hpke_key": INSTANCE,
        "resolver_keys": [EVIL.verify_key, RESOLVER.verify_key],
        "request_hash": HASH,
    }
    return open_answer(envelope, **(ordinary | changes))


@given(st.binary(max_size=500))
@settings(max_examples=examples(30))
def test_the_instance_opens_what_it_asked_for(payload: bytes) -> None:
    assert opened(sealed(payload)) == payload


def test_the_payload_is_not_in_the_envelope() -> None:
    wire = sealed(b"postgres://u:hunter2hunter2@h/db")
    assert b"hunter2" not in wire + from_base64url(json.loads(wire)["sealed"])


ENVELOPE = sealed()


@given(st.integers(0, len(ENVELOPE) * 8 - 1))
@settings(max_examples=examples(300))
def test_a_flipped_bit_anywhere_is_refused_with_the_same_words(bit: int) -> None:
    damaged = bytearray(ENVELOPE)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureInvalid) as refused:
        opened(bytes(damaged))
    assert str(refused.value) == str(SignatureInvalid())
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "change",
    [
        {"request_hash": request_hash(b"assertion", b"another body")},
        {"request_hash": request_hash(b"another assertion", b"body")},
        {"request_hash": request_hash(b"assertionbody", b"")},
        {"instance_id": "instance/2"},
        {"resolver_keys": [EVIL.verify_key]},
        {"resolver_keys": []},
    ],
)
def test_an_answer_to_another_request_or_from_another_signer_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalid):
        opened(ENVELOPE, **change)


def test_a_signer_under_anothers_name_is_refused() -> None:
    wire = json.loads(sealed(resolver_signing_key=EVIL))
    with pytest.raises(SignatureInvalid):
        opened(json.dumps(wire | {"kid": RESOLVER.key_id}).encode())


def test_nobody_who_only_knows_the_instances_public_key_can_answer() -> None:
    wire = json.loads(ENVELOPE)
    context = frame(ANSWER_DOMAIN, b"instance/1", HASH)
    wire["sealed"] = to_base64url(seal(b"postgres://evil", INSTANCE.public, context=context))
    with pytest.raises(SignatureInvalid):
        opened(json.dumps(wire).encode())


def test_another_instance_can_not_open_what_was_sealed_to_this_one() -> None:
    with pytest.raises(SealInvalid):
        opened(ENVELOPE, instance_hpke_key=SealingKey.generate())


def test_a_signed_answer_sealed_for_another_request_does_not_open() -> None:
    # A signature alone must not carry it: the seal is bound to the request too.
    other = frame(ANSWER_DOMAIN, b"instance/1", request_hash(b"another", b"body"))
    moved = seal(b"payload", INSTANCE.public, context=other)
    signature = RESOLVER.sign(ANSWER_DOMAIN, b"instance/1", HASH, moved)
    wire = {"v": 1, "kid": RESOLVER.key_id, "sealed": to_base64url(moved), "signature": to_base64url(signature)}
    with pytest.raises(SealInvalid):
        opened(json.dumps(wire).encode())


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 5000,
        json.dumps(json.loads(ENVELOPE) | {"v": 2}).encode(),
        json.dumps(json.loads(ENVELOPE) | {"extra": 1}).encode(),
        json.dumps(json.loads(ENVELOPE) | {"kid": None}).encode(),
        json.dumps(json.loads(ENVELOPE) | {"sealed": 7}).encode(),
        json.dumps(json.loads(ENVELOPE) | {"signature": json.loads(ENVELOPE)["signature"] + "=="}).encode(),
        ENVELOPE + b" " * LARGEST_ENVELOPE,
    ],
)
def test_bytes_that_are_no_envelope_are_refused_in_the_same_way(wire: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        opened(wire)
