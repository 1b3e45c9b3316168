"""What the published vectors are made from: keys of counting bytes, one request, one moment. Never to be changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.crypto import SealingKey, SigningKey
from shared.delivery import Request, make_assertion

FOLDER = Path(__file__).resolve().parents[3] / "schemas" / "examples" / "delivery"

INSTANCE_SEED, RESOLVER_SEED, SEALING_SEED, POLICY_SEED, STRANGER_SEED = (
    bytes(range(n, n + 32)) for n in (0, 32, 64, 96, 128)
)
INSTANCE_ID = "instance/0b9d6c1e"
BODY = '{"server":"patients-db","context":"hospital-a","floor":{"policy":812,"catalog":77}}'
PAYLOAD = '{"example":"the payload is a ResolveAnswer; any bytes will do here"}'
REQUEST = {
    "method": "POST",
    "target": "/v1/resolve?trace=1",
    "audience": "https://resolver.example",
    "body": BODY,
    "token": "eyJhbGciOiJSUzI1NiJ9.an-example-and-no-real-token.c2lnbmF0dXJl",
}
ASSERTED_AT = 1_800_000_000


def read_vector(name: str) -> dict[str, Any]:
    """A vector as it was published."""
    return dict(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def signing_key(seed: bytes) -> SigningKey:
    """Make a signing key from its 32 private bytes."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


def sealing_key(seed: bytes) -> SealingKey:
    """Make a sealing key from its 32 private bytes."""
    return SealingKey(X25519PrivateKey.from_private_bytes(seed))


def request() -> Request:
    """The request of `assertion.json`."""
    return Request(**{**REQUEST, "body": BODY.encode()})  # type: ignore[arg-type]


def assertion() -> str:
    """Make the assertion of the vectors; Ed25519 is deterministic, so it is always the same."""
    return make_assertion(
        request(),
        key=signing_key(INSTANCE_SEED),
        instance_id=INSTANCE_ID,
        now=ASSERTED_AT,
        lifetime_s=60,
        assertion_id="AAECAwQFBgcICQoLDA0ODw",
    )
