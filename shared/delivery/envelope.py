"""The answer's envelope: sealed to the instance that asked, and signed by the resolver.

HPKE's sender is anonymous, and a forged connection string is an attack too: hence the signature. On the wire:

    {"v":1, "kid":<id of the resolver's key>, "sealed":<base64url>, "signature":<base64url>}

    request hash = SHA-256 of frame("keyfob/request/1", assertion, body)
    sealed       = HPKE to the instance's key, info = frame("keyfob/answer/1", instance id, request hash)
    signature    = sign("keyfob/answer/1", instance id, request hash, sealed)

`frame` is in `shared.crypto.framing`, `sign` in `shared.crypto.signing`, the HPKE suite in
`shared.crypto.sealing`. The request hash covers the assertion, and so its unique id: an answer belongs to one
request of one instance, and to no repetition of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from shared.crypto.framing import frame, from_base64url, sha256, to_base64url
from shared.crypto.sealing import seal
from shared.errors import SignatureInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.crypto.sealing import SealingKey, SealingPublicKey
    from shared.crypto.signing import SigningKey, VerifyKey

VERSION: Final = 1
REQUEST_DOMAIN: Final = b"keyfob/request/1"
ANSWER_DOMAIN: Final = b"keyfob/answer/1"
MEDIA_TYPE: Final = "application/vnd.keyfob.sealed+json"
LARGEST_ENVELOPE: Final = 4 * 1024 * 1024
"""Bytes; a definition's fields together are far smaller."""


def request_hash(assertion: bytes, body: bytes) -> bytes:
    """Hash what an answer answers: the assertion exactly as sent, and the body it was sent with."""
    return sha256(frame(REQUEST_DOMAIN, assertion, body))


def seal_answer(
    payload: bytes | bytearray,
    *,
    instance_id: str,
    instance_hpke_public: SealingPublicKey,
    resolver_signing_key: SigningKey,
    request_hash: bytes,
) -> bytes:
    """Seal and sign `payload` for one request of one instance. The caller wipes `payload` if it can."""
    instance = instance_id.encode()
    sealed = seal(payload, instance_hpke_public, context=frame(ANSWER_DOMAIN, instance, request_hash))
    # Over what is sealed: anybody with the key can check the signer without opening anything.
    signature = resolver_signing_key.sign(ANSWER_DOMAIN, instance, request_hash, sealed)
    envelope = {
        "v": VERSION,
        "kid": resolver_signing_key.key_id,
        "sealed": to_base64url(sealed),
        "signature": to_base64url(signature),
    }
    return orjson.dumps(envelope)


def open_answer(
    envelope: bytes,
    *,
    instance_id: str,
    instance_hpke_key: SealingKey,
    resolver_keys: Iterable[VerifyKey],
    request_hash: bytes,
) -> bytes:
    """Open the answer to the request that the caller itself sent.

    1. Read the envelope within its bounds.
    2. Find the signer among `resolver_keys`, pinned at enrolment: an unknown key id is no signer.
    3. Verify the signature over instance, request and sealed bytes.
    4. Open, under the same instance and request.

    `SignatureInvalid` for all that 1 to 3 refuse, whatever the cause; `SealInvalid` if a genuine answer was
    sealed to another key. The caller still owes: discarding the answer if a notice made it obsolete meanwhile.
    """
    # 1.
    key_id, sealed, signature = _read(envelope)
    # 2.
    # A key id is only a name; that the signer holds the key is proved by what follows.
    key = next((key for key in resolver_keys if key.key_id == key_id), None)
    if key is None:
        raise SignatureInvalid
    # 3.
    instance = instance_id.encode()
    key.verify(signature, ANSWER_DOMAIN, instance, request_hash, sealed)
    # 4.
    return instance_hpke_key.open(sealed, context=frame(ANSWER_DOMAIN, instance, request_hash))


def _read(envelope: bytes) -> tuple[str, bytes, bytes]:
    if len(envelope) > LARGEST_ENVELOPE:
        raise SignatureInvalid
    try:
        wire = orjson.loads(envelope)
        return _members(wire)
    except (ValueError, TypeError, AttributeError):
        raise SignatureInvalid from None


def _members(wire: dict[str, Any]) -> tuple[str, bytes, bytes]:
    if wire.keys() != {"v", "kid", "sealed", "signature"} or wire["v"] != VERSION:
        raise SignatureInvalid
    return wire["kid"], from_base64url(wire["sealed"]), from_base64url(wire["signature"])
