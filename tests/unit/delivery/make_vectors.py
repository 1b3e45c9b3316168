"""Writes the vectors that implementers of other gateways test against: `python -m tests.unit.delivery.make_vectors`.

A vector that was published never changes, so a file that exists is left as it is. The keys are counting bytes:
nobody will mistake them for real ones.
"""

from __future__ import annotations

import json
from typing import Any

from shared.crypto import canonical, digest, seal
from shared.crypto.framing import frame, to_base64url
from shared.crypto.signing import PREFIX
from shared.delivery import certify_sealing_key, request_hash, seal_answer
from shared.delivery.envelope import ANSWER_DOMAIN
from tests.unit.delivery import refused_vectors, topic_vectors
from tests.unit.delivery.vector_inputs import (
    ASSERTED_AT,
    BODY,
    FOLDER,
    INSTANCE_ID,
    INSTANCE_SEED,
    PAYLOAD,
    POLICY_SEED,
    REQUEST,
    RESOLVER_SEED,
    SEALING_SEED,
    assertion,
    sealing_key,
    signing_key,
)


def vectors() -> dict[str, dict[str, Any]]:
    """Compute every vector, by file name."""
    return {
        "signing": _signing(),
        "sealing": _sealing(),
        "canonical": _canonical(),
        "certificate": _certificate(),
        "assertion": _assertion(),
        "envelope": _envelope(),
        "enrolment": _enrolment(),
        "answer": _answer(),
        "record": topic_vectors.record(),
        "tick": topic_vectors.tick(),
        "notices": topic_vectors.notices(),
        "receipt": topic_vectors.receipt(),
        "refused": refused_vectors.refused(),
    }


def _signing() -> dict[str, Any]:
    key, domain, parts = signing_key(INSTANCE_SEED), b"keyfob/example/1", [b"ab", b"", b"c"]
    return {
        "about": "Ed25519 over the prefix and the framed domain and parts; byte strings in base64url",
        "private_key": to_base64url(INSTANCE_SEED),
        "public_key": key.verify_key.to_base64(),
        "key_id": key.key_id,
        "domain": domain.decode(),
        "parts": [to_base64url(part) for part in parts],
        "signed_bytes_hex": (PREFIX + frame(domain, *parts)).hex(),
        "signature": to_base64url(key.sign(domain, *parts)),
    }


def _sealing() -> dict[str, Any]:
    key, context = sealing_key(SEALING_SEED), b"an example's context"
    return {
        "about": "HPKE base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; info is the context",
        "private_key": to_base64url(SEALING_SEED),
        "public_key": key.public.to_base64(),
        "context": to_base64url(context),
        "plaintext": to_base64url(b"an example's plaintext"),
        "sealed": to_base64url(seal(b"an example's plaintext", key.public, context=context)),
    }


def _canonical() -> dict[str, Any]:
    value: dict[str, Any] = {"b": [1, 2.5, None, True], "a": "é€\n", "A": {}}
    return {
        "about": "RFC 8785; the digest is SHA-256 over the framed domain and canonical bytes",
        "value": value,
        "canonical_hex": canonical(value).hex(),
        "domain": "keyfob/example/1",
        "digest": digest(b"keyfob/example/1", value),
    }


def _certificate() -> dict[str, Any]:
    signing, sealing = signing_key(INSTANCE_SEED), sealing_key(SEALING_SEED)
    return {
        "about": "What an instance sends when it enrols: its signing key certifies its sealing key",
        "signing_key": signing.verify_key.to_base64(),
        "sealing_key": sealing.public.to_base64(),
        "sealing_key_signature": certify_sealing_key(signing, sealing.public),
    }


def _assertion() -> dict[str, Any]:
    return {
        "about": "The value of the Keyfob-Assertion header for this request at this time",
        "instance_id": INSTANCE_ID,
        "private_key": to_base64url(INSTANCE_SEED),
        "public_key": signing_key(INSTANCE_SEED).verify_key.to_base64(),
        "request": REQUEST,
        "verified_at": ASSERTED_AT + 5,
        "assertion": assertion(),
    }


def _envelope() -> dict[str, Any]:
    resolver, sealing = signing_key(RESOLVER_SEED), sealing_key(SEALING_SEED)
    hashed = request_hash(assertion().encode(), BODY.encode())
    wire = seal_answer(
        PAYLOAD.encode(),
        instance_id=INSTANCE_ID,
        instance_hpke_public=sealing.public,
        resolver_signing_key=resolver,
        request_hash=hashed,
    )
    return {
        "about": "The answer to the request of assertion.json, as it comes over HTTP",
        "instance_id": INSTANCE_ID,
        "instance_private_key": to_base64url(SEALING_SEED),
        "resolver_key": resolver.verify_key.to_base64(),
        "assertion": assertion(),
        "body": BODY,
        "request_hash": to_base64url(hashed),
        "context_hex": frame(ANSWER_DOMAIN, INSTANCE_ID.encode(), hashed).hex(),
        "payload": PAYLOAD,
        "envelope": json.loads(wire),
    }


def _enrolment() -> dict[str, Any]:
    signing, sealing = signing_key(INSTANCE_SEED), sealing_key(SEALING_SEED)
    return {
        "about": "The body that an instance enrols with, and what policy answers",
        "signing_private_key": to_base64url(INSTANCE_SEED),
        "sealing_private_key": to_base64url(SEALING_SEED),
        "certified_bytes_hex": (PREFIX + frame(b"keyfob/sealing-key/1", sealing.public.raw)).hex(),
        "request": {
            "token": "kfe_an-example-and-no-real-token",
            "name": "gw-7",
            "signing_key": signing.verify_key.to_base64(),
            "sealing_key": sealing.public.to_base64(),
            "sealing_key_signature": certify_sealing_key(signing, sealing.public),
        },
        "answer": {
            "instance_id": INSTANCE_ID,
            "labels": {"region": "north"},
            "allowed_servers": ["*"],
            "resolver_keys": [signing_key(RESOLVER_SEED).verify_key.to_base64()],
            "policy_key": signing_key(POLICY_SEED).verify_key.to_base64(),
            "bootstrap": {"broker": "broker.example:9093", "resolver": "https://resolver.example"},
        },
    }


def _answer() -> dict[str, Any]:
    """As `_envelope`, with a payload that holds all that one can."""
    payload = json.dumps(topic_vectors.answer(), separators=(",", ":"))
    hashed = request_hash(assertion().encode(), BODY.encode())
    wire = seal_answer(
        payload.encode(),
        instance_id=INSTANCE_ID,
        instance_hpke_public=sealing_key(SEALING_SEED).public,
        resolver_signing_key=signing_key(RESOLVER_SEED),
        request_hash=hashed,
    )
    return {
        "about": "Another answer to the request of assertion.json, with a payload as resolvers send it",
        "instance_id": INSTANCE_ID,
        "instance_private_key": to_base64url(SEALING_SEED),
        "resolver_key": signing_key(RESOLVER_SEED).verify_key.to_base64(),
        "policy_key": signing_key(POLICY_SEED).verify_key.to_base64(),
        "request_hash": to_base64url(hashed),
        "payload": payload,
        "values": {"DB_URL": "postgresql://ada:pw@db/a", "CA_FILE_hex": "ff00fe"},
        "envelope": json.loads(wire),
    }


def main() -> None:
    """Write the vectors that are missing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, vector in vectors().items():
        path = FOLDER / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(vector, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
