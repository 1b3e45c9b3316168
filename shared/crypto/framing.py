"""Bytes that can be read in one way only: the framing under every signature, seal context and digest.

Layout of `frame(a, b, …)`:

    u32 big-endian length of a | a | u32 big-endian length of b | b | …

A sequence of length-prefixed parts decodes to exactly one list of parts, so two different lists never
give the same bytes, whatever the parts contain.

Base64 on the wire is base64url without padding (RFC 4648 §5, as in RFC 7515 §2), decoded strictly: text
with padding, other characters or non-zero spare bits is refused, so one value has one spelling.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Final

_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")


def frame(*parts: bytes) -> bytes:
    """Join `parts` so that no other list of parts gives the same bytes; each part is below 4 GiB."""
    return b"".join([piece for part in parts for piece in (len(part).to_bytes(4, "big"), part)])


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """SHA-256 (FIPS 180-4) of `data`, 32 bytes."""
    return hashlib.sha256(data).digest()


def to_base64url(data: bytes | memoryview) -> str:
    """Base64url of `data` without padding (RFC 7515 §2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def from_base64url(text: str | bytes) -> bytes:
    """Strict inverse of `to_base64url`; `ValueError`, which never quotes the text, for any other spelling."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        message = "not base64url: there are characters outside ASCII"
        raise ValueError(message) from None
    if b"+" in raw or b"/" in raw or b"=" in raw:
        message = "not base64url: standard alphabet or padding"
        raise ValueError(message)
    try:
        # Strict mode also refuses line breaks and anything outside the alphabet.
        decoded = binascii.a2b_base64(raw.translate(_TO_STANDARD) + b"=" * (-len(raw) % 4), strict_mode=True)
    except binascii.Error:
        message = "not base64url"
        raise ValueError(message) from None
    # The spare bits of the last character must be zero, or one value would have several spellings.
    spare = len(raw) % 4
    if spare and to_base64url(decoded[-(len(decoded) % 3) :]).encode() != raw[-spare:]:
        message = "not base64url: spare bits are set"
        raise ValueError(message)
    return decoded
