"""Values at rest: each version sealed under a random key of its own, in two layers with two contexts.

    sealed     = 0x01 | DEK id (16) | nonce (12) | commitment (32) | ciphertext | tag (16)       value + 77 bytes
    keys       = HKDF-SHA256 (RFC 5869) of the DEK, no salt, info "keyfob/sealed-value/1", 64 bytes:
                 encryption key (32) | commitment (32)
    encryption = AES-256-GCM (NIST SP 800-38D)
    associated = frame("keyfob/sealed-value/1", DEK id) | what `shared.custody.contexts` frames
    wrap       = the DEK under the installation's key (`shared.custody.wraps`)

AES-GCM does not commit to its key: one ciphertext can be made that opens under two keys to two values. The commitment
rules that out, and is compared before anything is decrypted. The first byte is the format: a new one gets a new number,
and old ones stay readable.

A database shows how long a value is, and nothing else of it.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.crypto.framing import frame
from shared.crypto.secret import SecretBytes
from shared.custody.keks import NONCE_BYTES, TAG_BYTES
from shared.custody.wraps import DEK_BYTES, DEK_ID_BYTES, unwrap_dek, wrap_dek
from shared.errors import SealInvalid, TooLarge

if TYPE_CHECKING:
    from shared.custody.contexts import SealContext
    from shared.custody.keks import Kek

FORMAT: Final = b"\x01"
DOMAIN: Final = b"keyfob/sealed-value/1"
COMMITMENT_BYTES: Final = 32
"""256 bits, so that finding two keys with one commitment takes 2^128 tries."""

LARGEST_VALUE: Final = 64 * 1024
"""Bytes; GCM itself would allow 2^36 - 32 (NIST SP 800-38D §5.2.1.1). A key encrypts one message and no second."""

_SHA256: Final = SHA256()
_DERIVED: Final = DEK_BYTES + COMMITMENT_BYTES
_BEFORE_DEK_ID: Final = frame(DOMAIN) + DEK_ID_BYTES.to_bytes(4, "big")
_DEK_ID: Final = slice(1, 1 + DEK_ID_BYTES)
_NONCE: Final = slice(_DEK_ID.stop, _DEK_ID.stop + NONCE_BYTES)
_COMMITMENT: Final = slice(_NONCE.stop, _NONCE.stop + COMMITMENT_BYTES)
_CIPHERTEXT: Final = slice(_COMMITMENT.stop, None)
OVERHEAD_BYTES: Final = _COMMITMENT.stop + TAG_BYTES
"""What sealing adds to a value's length, besides the wrap."""


@dataclass(frozen=True, slots=True)
class SealedValue:
    """What a row keeps: the value's seal, which never changes, and its key's wrap, which a rotation replaces."""

    sealed: bytes = field(repr=False)
    wrap: bytes = field(repr=False)


def seal_at_rest(value: SecretBytes, *, context: SealContext, kek: Kek) -> SealedValue:
    """Seal a value, which stays the caller's to wipe; `TooLarge` beyond `LARGEST_VALUE`.

    Sealing the same value again gives other bytes under another key.
    """
    fresh = os.urandom(DEK_BYTES + DEK_ID_BYTES + NONCE_BYTES)
    dek, dek_id, nonce = fresh[:DEK_BYTES], fresh[DEK_BYTES:-NONCE_BYTES], fresh[-NONCE_BYTES:]
    framed = context.framed()
    keys = _derive(dek)
    with value.reveal() as view:
        if len(view) > LARGEST_VALUE:
            raise TooLarge(f"A value may have {LARGEST_VALUE} bytes at most.")
        ciphertext = AESGCM(keys[:DEK_BYTES]).encrypt(nonce, view, _associated(dek_id, framed))
    sealed = b"".join((FORMAT, dek_id, nonce, keys[DEK_BYTES:], ciphertext))
    return SealedValue(sealed, wrap_dek(dek, dek_id, framed=framed, kek=kek))


def open_at_rest(value: SealedValue, *, context: SealContext, kek: Kek) -> SecretBytes:
    """Open a value for the context that the caller knows from elsewhere: its own question, not the row's answer.

    1. Read the layout.
    2. Unwrap the data key, under the wrap's DEK id, KEK id and the context.
    3. Derive its keys, and compare the commitment in constant time: another value's wrap ends here.
    4. Decrypt, under the seal's DEK id and the context.

    `SealInvalid`, always the same, for whatever was changed or exchanged. The caller wipes what it gets.
    """
    # 1.
    sealed = value.sealed
    length = len(sealed) - OVERHEAD_BYTES
    if length < 0 or length > LARGEST_VALUE or sealed[:1] != FORMAT:
        raise SealInvalid
    framed, dek_id = context.framed(), sealed[_DEK_ID]
    # 2.
    dek = unwrap_dek(value.wrap, framed=framed, kek=kek)
    # 3.
    keys = _derive(dek)
    dek[:] = bytes(DEK_BYTES)
    if not hmac.compare_digest(keys[DEK_BYTES:], sealed[_COMMITMENT]):
        raise SealInvalid
    # 4.
    opened = bytearray(length)
    try:
        AESGCM(keys[:DEK_BYTES]).decrypt_into(
            sealed[_NONCE], memoryview(sealed)[_CIPHERTEXT], _associated(dek_id, framed), opened
        )
    except InvalidTag:
        raise SealInvalid from None
    return SecretBytes.taking(opened)


def _derive(dek: bytes | bytearray) -> bytes:
    """Encryption key and commitment, in this order."""
    return HKDF(_SHA256, _DERIVED, None, DOMAIN).derive(dek)


def _associated(dek_id: bytes, framed: bytes) -> bytes:
    # What `frame` gives, with the part that never changes made once.
    return _BEFORE_DEK_ID + dek_id + framed
