"""The bytes of `docs/protocol.md`, as somebody else would write them: all that needs no state."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class NotGenuine(Exception):
    """Something does not verify."""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if b64(data) != text:
        raise NotGenuine("base64url")
    return data


def frame(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def to_sign(domain: str, *parts: bytes) -> bytes:
    return b"keyfob/signature/1\x00" + frame(domain.encode(), *parts)


def verify(key: bytes, signature: bytes, domain: str, *parts: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, to_sign(domain, *parts))
    except InvalidSignature:
        raise NotGenuine(domain) from None


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class Keys:
    """Section 2: made on the spot."""

    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)
    sealing: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)

    def sign(self, domain: str, *parts: bytes) -> str:
        return b64(self.signing.sign(to_sign(domain, *parts)))

    @property
    def public(self) -> bytes:
        return self.signing.public_key().public_bytes_raw()

    def enrolment(self, token: str, name: str) -> dict[str, str]:
        sealing = self.sealing.public_key().public_bytes_raw()
        return {
            "token": token,
            "name": name,
            "signing_key": b64(self.public),
            "sealing_key": b64(sealing),
            "sealing_key_signature": self.sign("keyfob/sealing-key/1", sealing),
        }

    def assertion(self, instance_id: str, origin: str, body: bytes, token: str, *, now: float) -> str:
        """Section 4."""
        header = {"alg": "EdDSA", "typ": "keyfob-assertion+jwt", "kid": instance_id}
        claims = {
            "aud": origin,
            "htm": "POST",
            "htu": "/v1/resolve",
            "bh": b64(sha256(body)),
            "ath": b64(sha256(token.encode())),
        }
        claims |= {"iat": int(now), "exp": int(now) + 30, "jti": b64(secrets.token_bytes(16))}
        signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
        return f"{signed}.{b64(self.signing.sign(signed.encode()))}"

    def open(self, envelope: bytes, instance_id: str, resolver_keys: Iterable[bytes], request_hash: bytes) -> Any:
        """Section 6, in its order; the plaintext as JSON."""
        try:
            wire = json.loads(envelope)
            if wire["v"] != 1 or wire.keys() != {"v", "kid", "sealed", "signature"}:
                raise NotGenuine("envelope")
            sealed, signature = unb64(wire["sealed"]), unb64(wire["signature"])
            key = next(key for key in resolver_keys if key_id(key) == wire["kid"])
            verify(key, signature, "keyfob/answer/1", instance_id.encode(), request_hash, sealed)
            info = frame(b"keyfob/answer/1", instance_id.encode(), request_hash)
            return json.loads(SUITE.decrypt(sealed, self.sealing, info))
        except (ValueError, KeyError, TypeError, StopIteration, InvalidTag):
            raise NotGenuine("answer") from None

    def receipt(self, receipt: dict[str, Any]) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
        """Section 11: key, value and headers."""
        value = json.dumps(receipt).encode()
        headers = {
            "ce_specversion": "1.0",
            "ce_type": "keyfob.receipt.gateway.v1",
            "ce_id": f"{receipt['run']}/{receipt['n']}",
            "ce_source": f"/{receipt['instance_id']}",
            "ce_time": receipt["at"],
            "ce_signature": self.sign("keyfob/receipt/v1", value),
            "ce_keyid": key_id(self.public),
            "content-type": "application/json",
        }
        return receipt["instance_id"].encode(), value, [(name, text.encode()) for name, text in headers.items()]


def request_hash(assertion: str, body: bytes) -> bytes:
    return sha256(frame(b"keyfob/request/1", assertion.encode(), body))


def definition(answer: dict[str, Any], policy_key: bytes) -> dict[str, Any]:
    """Section 7: the definition, if policy signed it for this answer."""
    signed, server_id = answer["server"], answer["server_id"]
    if signed["type"] != "keyfob.policy.server.v1":
        raise NotGenuine("type")
    payload = unb64(signed["payload"])
    verify_record(policy_key, unb64(signed["signature"]), signed["type"], server_id, payload)
    record: dict[str, Any] = json.loads(payload)
    fields = sorted(one["name"] for one in record["definition"]["fields"])
    found = (record["id"], record["deleted"], record["digest"], fields)
    wanted = (server_id, False, answer["definition_digest"], sorted(one["name"] for one in answer["fields"]))
    if found != wanted:
        raise NotGenuine("definition")
    return dict(record["definition"])


def verify_record(policy_key: bytes, signature: bytes, type_: str, key: str, payload: bytes) -> None:
    verify(policy_key, signature, "keyfob/record/v1", b"keyfob.policy.v1", type_.encode(), key.encode(), payload)


def tick(value: bytes, policy_key: bytes) -> tuple[int, float]:
    """Section 9: number and time of a genuine tick."""
    try:
        message = json.loads(value)
        payload, signature = (base64.urlsafe_b64decode(message[name]) for name in ("payload", "signature"))
        verify_record(policy_key, signature, "keyfob.policy.tick.v1", "tick", payload)
        said = json.loads(payload)
        return said["seq"], datetime.fromisoformat(said["at"]).timestamp()
    except (ValueError, KeyError, TypeError):
        raise NotGenuine("tick") from None
