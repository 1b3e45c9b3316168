"""HPKE (RFC 9180): bytes that only the holder of one key can open.

Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (0x0020, 0x0001, 0x0002), base mode, one message.

    sealed = enc (32 bytes) | ciphertext | tag (16 bytes)

The context goes into HPKE's `info`; the AEAD's associated data is empty. Opening under another context
fails as if the bytes were damaged. Base mode says nothing about who sealed: sign the result
(`shared.delivery.envelope`) or bind it otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from shared.crypto.framing import from_base64url, to_base64url
from shared.crypto.private_keys import load_private_key, save_private_key
from shared.crypto.signing import key_id_of
from shared.errors import SealInvalid

if TYPE_CHECKING:
    from pathlib import Path

SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
OVERHEAD_BYTES: Final = 32 + 16
"""What sealing adds to a message's length."""


class SealingPublicKey:
    """The public half: what senders seal to."""

    __slots__ = ("key", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        """Take the 32 public bytes; `ValueError` for another length."""
        self.key = X25519PublicKey.from_public_bytes(raw)
        self.raw = raw
        self.key_id = key_id_of(raw)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read `to_base64`'s form; `ValueError`, which never quotes the text, for anything else."""
        return cls(from_base64url(text))

    def to_base64(self) -> str:
        """Write the 32 public bytes in base64url without padding, 43 characters."""
        return to_base64url(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealingPublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"SealingPublicKey({self.key_id})"


class SealingKey:
    """The private half; it shows only its id and can't be pickled or copied."""

    __slots__ = ("_key", "public")

    def __init__(self, key: X25519PrivateKey) -> None:
        """Wrap a private key."""
        self._key = key
        self.public = SealingPublicKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM or base64 file; `KeyFileRefused` if it is readable by others or isn't an X25519 key."""
        # The library declares its keys as abstract classes.
        return cls(load_private_key(path, X25519PrivateKey))  # type: ignore[type-abstract]

    def save(self, path: Path) -> None:
        """Write PKCS #8 PEM, mode 0600, atomically."""
        save_private_key(path, self._key)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Open; `SealInvalid` for another key, another context or a changed byte, without saying which."""
        try:
            return SUITE.decrypt(sealed, self._key, context)
        # Too short, a wrong key, another context: told apart, they would help whoever tries.
        except (InvalidTag, ValueError):
            raise SealInvalid from None

    def __repr__(self) -> str:
        return f"SealingKey({self.public.key_id})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        message = "a private key is not pickled or copied"
        raise TypeError(message)


def seal(plaintext: bytes | bytearray | memoryview, public: SealingPublicKey, *, context: bytes) -> bytes:
    """Seal `plaintext` to `public`; it opens only under the same `context`."""
    return SUITE.encrypt(plaintext, public.key, context)
