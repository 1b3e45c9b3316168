"""The published vectors hold: with our code, and with plain libraries that know only the documents."""

import hashlib
import json
import struct
import warnings
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey

from shared.crypto import SealingPublicKey, VerifyKey, canonical, digest
from shared.crypto.framing import from_base64url, to_base64url
from shared.delivery import (
    ReplayWindow,
    Request,
    open_answer,
    request_hash,
    verify_assertion,
    verify_certificate,
)
from tests.unit.delivery.make_vectors import FOLDER, sealing_key, signing_key, vectors

RANDOMISED = {"sealing": ("sealed",), "envelope": ("envelope",)}


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", sorted(vectors()))
def test_what_we_compute_today_is_what_was_published(name: str) -> None:
    published, computed = read(name), vectors()[name]
    for member in RANDOMISED.get(name, ()):
        published.pop(member)
        computed.pop(member)
    assert published == computed


def test_a_published_signature_verifies() -> None:
    vector = read("signing")
    key = VerifyKey.from_base64(vector["public_key"])
    parts = [from_base64url(part) for part in vector["parts"]]
    key.verify(from_base64url(vector["signature"]), vector["domain"].encode(), *parts)
    assert key.key_id == vector["key_id"]


def test_a_plain_library_verifies_a_published_signature() -> None:
    vector = read("signing")
    message = b"keyfob/signature/1\x00"
    for part in (vector["domain"].encode(), *map(from_base64url, vector["parts"])):
        message += struct.pack(">I", len(part)) + part
    assert message.hex() == vector["signed_bytes_hex"]
    key = Ed25519PublicKey.from_public_bytes(from_base64url(vector["public_key"]))
    key.verify(from_base64url(vector["signature"]), message)


def test_published_sealed_bytes_open() -> None:
    vector = read("sealing")
    key = sealing_key(from_base64url(vector["private_key"]))
    opened = key.open(from_base64url(vector["sealed"]), context=from_base64url(vector["context"]))
    assert to_base64url(opened) == vector["plaintext"]


def test_published_canonical_bytes_and_digest() -> None:
    vector = read("canonical")
    assert canonical(vector["value"]).hex() == vector["canonical_hex"]
    assert digest(vector["domain"].encode(), vector["value"]) == vector["digest"]


def test_a_published_certificate_verifies() -> None:
    vector = read("certificate")
    verify_certificate(
        vector["sealing_key_signature"],
        signing_key=VerifyKey.from_base64(vector["signing_key"]),
        sealing_key=SealingPublicKey.from_base64(vector["sealing_key"]),
    )


def test_a_published_assertion_verifies() -> None:
    vector = read("assertion")
    verified = verify_assertion(
        vector["assertion"],
        Request(**{**vector["request"], "body": vector["request"]["body"].encode()}),
        key_of={vector["instance_id"]: VerifyKey.from_base64(vector["public_key"])}.get,
        seen=ReplayWindow(),
        now=vector["verified_at"],
    )
    assert verified.instance_id == vector["instance_id"]


def test_a_jose_library_reads_a_published_assertion() -> None:
    vector = read("assertion")
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": vector["public_key"]})
    with warnings.catch_warnings():
        # The name EdDSA is older than RFC 9864, and the one that every library knows.
        warnings.simplefilter("ignore", SecurityWarning)
        token = jwt.decode(vector["assertion"], key, algorithms=["EdDSA"])
    assert token.header == {"alg": "EdDSA", "typ": "keyfob-assertion+jwt", "kid": vector["instance_id"]}
    body, subject_token = (vector["request"][name].encode() for name in ("body", "token"))
    assert from_base64url(token.claims["bh"]) == hashlib.sha256(body).digest()
    assert from_base64url(token.claims["ath"]) == hashlib.sha256(subject_token).digest()


def test_a_jose_library_makes_an_assertion_that_we_accept() -> None:
    vector = read("assertion")
    public = signing_key(from_base64url(vector["private_key"])).verify_key
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": public.to_base64(), "d": vector["private_key"]}
    request = Request(**{**vector["request"], "body": vector["request"]["body"].encode()})
    claims = request.claims() | {"iat": 100, "exp": 130, "jti": "made-elsewhere"}
    header = {"typ": "keyfob-assertion+jwt", "kid": "instance/x", "alg": "Ed25519"}
    made = jwt.encode(header, claims, OKPKey.import_key(jwk), algorithms=["Ed25519"])
    verified = verify_assertion(made, request, key_of=lambda _id: public, seen=ReplayWindow(), now=110)
    assert verified.assertion_id == "made-elsewhere"


def test_a_published_envelope_opens() -> None:
    vector = read("envelope")
    hashed = request_hash(vector["assertion"].encode(), vector["body"].encode())
    assert to_base64url(hashed) == vector["request_hash"]
    opened = open_answer(
        json.dumps(vector["envelope"]).encode(),
        instance_id=vector["instance_id"],
        instance_hpke_key=sealing_key(from_base64url(vector["instance_private_key"])),
        resolver_keys=[VerifyKey.from_base64(vector["resolver_key"])],
        request_hash=hashed,
    )
    assert opened.decode() == vector["payload"]


def test_a_plain_hpke_library_opens_a_published_envelope() -> None:
    vector = read("envelope")
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    key = X25519PrivateKey.from_private_bytes(from_base64url(vector["instance_private_key"]))
    sealed = from_base64url(vector["envelope"]["sealed"])
    assert suite.decrypt(sealed, key, bytes.fromhex(vector["context_hex"])).decode() == vector["payload"]
