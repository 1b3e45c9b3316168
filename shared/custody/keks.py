"""The installation's key (KEK): 32 random bytes that wrap data keys and encrypt nothing else.

Two things follow from it, by HKDF-SHA256 (RFC 5869) without a salt, since the key is uniformly random:

    id       first 10 bytes under info "keyfob/kek-id/1": names the key in rows, files and sentences
    wrapper  32 bytes under info "keyfob/kek-wrap/1": the AES-256-GCM key that wraps data keys

So the id says nothing about the key, and the key itself never meets AES. It is never a passphrase, as an id would let
a guess be tested, and never taken from the environment, which other processes of the same user can read.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.crypto.key_files import KeyFileRefused
from shared.crypto.secret import SecretBytes
from shared.custody.key_lines import read_key_line, write_new_key_line
from shared.custody.key_text import (
    ID_BYTES,
    KEY_BYTES,
    KeyKind,
    KeyTextInvalid,
    id_to_text,
    read_key_text,
    write_key_text,
)
from shared.errors import KeyfobError, SealInvalid

if TYPE_CHECKING:
    from pathlib import Path

ID_INFO: Final = b"keyfob/kek-id/1"
WRAPPER_INFO: Final = b"keyfob/kek-wrap/1"

NONCE_BYTES: Final = 12
"""96 bits, the length that GCM is made for (NIST SP 800-38D §5.2.1.1)."""

TAG_BYTES: Final = 16
"""128 bits, the longest that GCM has (NIST SP 800-38D §5.2.1.2)."""

MOST_WRAPS: Final = 2**32
"""Messages under one key with random nonces (NIST SP 800-38D §8.3): then two nonces meet with probability 2^-32.

Each `Kek` counts its own. 100,000 data keys that are wrapped anew every day get there after 117 years.
"""


class KekWornOut(KeyfobError):
    """Raised when a key has wrapped as many data keys as it safely can; rotating mends it."""

    kind = "key-worn-out"
    title = "The installation key was used as often as is safe: rotate it (`keyfob keys rotate`)"


class Kek:
    """An installation key; it shows only its id and can't be pickled or copied.

    `key_id` is the id in 16 characters, `id_bytes` the same in 10 bytes.
    """

    __slots__ = ("_aead", "_raw", "_wraps", "id_bytes", "key_id")

    def __init__(self, raw: SecretBytes) -> None:
        """Take over a key's 32 bytes; `ValueError` for another length. Use `generate`, `from_text` or `load_kek`."""
        with raw.reveal() as view:
            if len(view) != KEY_BYTES:
                raise ValueError(f"an installation key has {KEY_BYTES} bytes")
            self.id_bytes = HKDF(SHA256(), ID_BYTES, None, ID_INFO).derive(view)
            self._aead = AESGCM(HKDF(SHA256(), KEY_BYTES, None, WRAPPER_INFO).derive(view))
        self._raw = raw
        self._wraps = 0
        self.key_id = id_to_text(self.id_bytes)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(SecretBytes(secrets.token_bytes(KEY_BYTES)))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `to_text`'s form; `KeyTextInvalid`, which never quotes the text, for anything else."""
        found = read_key_text(text, KeyKind.KEK)
        kek = cls(SecretBytes.taking(found.key))
        if kek.key_id != found.key_id:
            raise KeyTextInvalid("The id in the text is not this key's: the text was put together from two keys.")
        return kek

    def to_text(self) -> str:
        """The key as text for its file (`shared.custody.key_text`): whoever has it has everything sealed under it."""
        return write_key_text(KeyKind.KEK, self.id_bytes, self._raw)

    def raw(self) -> SecretBytes:
        """A copy of the 32 bytes, to be sealed for recovery or wrapped by a KMS; whoever takes it wipes it."""
        with self._raw.reveal() as view:
            return SecretBytes(view)

    def wrap(self, key: bytes | bytearray, associated: bytes) -> bytes:
        """Encrypt a data key: nonce (12) | ciphertext | tag (16). `KekWornOut` after `MOST_WRAPS`."""
        if self._wraps >= MOST_WRAPS:
            raise KekWornOut
        self._wraps += 1
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, key, associated)

    def unwrap(self, wrapped: bytes | memoryview, associated: bytes) -> bytearray:
        """Decrypt what `wrap` gave; `SealInvalid` for all else. Whoever takes the key overwrites it."""
        length = len(wrapped) - NONCE_BYTES - TAG_BYTES
        if length < 0:
            raise SealInvalid
        key = bytearray(length)
        try:
            self._aead.decrypt_into(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated, key)
        except InvalidTag:
            raise SealInvalid from None
        return key

    def matches(self, other: Kek) -> bool:
        """Whether both are the same key, in constant time."""
        return self._raw.matches(other._raw)

    def __repr__(self) -> str:
        return f"Kek({self.key_id})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("an installation key is not pickled or copied")


def load_kek(path: Path) -> Kek:
    """Read a key's file; `KeyFileRefused` if others may read it, or it does not hold an installation key as text."""
    line = read_key_line(path)
    try:
        return Kek.from_text(line)
    except KeyTextInvalid as problem:
        raise KeyFileRefused(f"{path}: {problem.detail}") from None


def save_new_kek(path: Path, kek: Kek) -> None:
    """Write the key to a new file with mode 0600; `KeyFileRefused` if there is one, which stays as it is."""
    write_new_key_line(path, kek.to_text())
