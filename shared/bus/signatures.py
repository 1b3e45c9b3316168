"""Which bytes of a record of state a signature covers.

Signed parts, under the domain `keyfob/record/v1`, in this order: topic, CloudEvents type, key, payload. The commit
sequence and the revision are inside the payload, so an old record can't be passed off as a new one.
The signature travels as base64url without padding in `ce_signature`, the key's id in `ce_keyid`.
"""

from __future__ import annotations

from typing import Protocol

from shared.crypto.framing import from_base64url, to_base64url
from shared.crypto.signing import SigningKey, VerifyKey
from shared.errors import SignatureInvalid

RECORD_DOMAIN = b"keyfob/record/v1"


class RecordSigner(Protocol):
    """Signs a record when the writer's API accepts it; returns the key's id and the signature."""

    def __call__(self, *, topic: str, type_: str, key: str, payload: bytes) -> tuple[str, bytes]:
        """Called once for each record of a commit that is to be signed."""
        ...


def record_signer(signing_key: SigningKey) -> RecordSigner:
    """A signer that uses one key."""

    def sign(*, topic: str, type_: str, key: str, payload: bytes) -> tuple[str, bytes]:
        parts = _parts(topic=topic, type_=type_, key=key, payload=payload)
        return signing_key.key_id, signing_key.sign(RECORD_DOMAIN, *parts)

    return sign


def record_verifies(
    verify_key: VerifyKey, signature: bytes, *, topic: str, type_: str, key: str, payload: bytes
) -> bool:
    """Whether the signature was made by this key over exactly this record."""
    try:
        verify_key.verify(signature, RECORD_DOMAIN, *_parts(topic=topic, type_=type_, key=key, payload=payload))
    except SignatureInvalid:
        return False
    return True


def to_header(signature: bytes) -> str:
    """How a signature is written into a header."""
    return to_base64url(signature)


def from_header(text: str | None) -> bytes | None:
    """The signature in a header, or None when there is none that can be read."""
    if not text:
        return None
    try:
        return from_base64url(text)
    except ValueError:
        return None


def _parts(*, topic: str, type_: str, key: str, payload: bytes) -> tuple[bytes, ...]:
    # Framed and not joined (`shared.crypto.framing`): a key can't reach into the type before it.
    return topic.encode(), type_.encode(), key.encode(), payload
