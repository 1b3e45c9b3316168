"""Ed25519 signatures (RFC 8032) with domain separation.

What is signed, so that anybody can verify it with a plain Ed25519 library:

    "keyfob/signature/1" | 0x00 | frame(domain, part 1, part 2, …)

`frame` is in `shared.crypto.framing`. The domain names the use (`b"keyfob/answer/1"`), so a signature made
for one use never verifies for another. The same instance key also signs JWS (`shared.delivery.assertion`):
the signing input of a JWS is base64url text and holds neither "/" nor 0x00, so neither kind can pass as
the other.

A key's id is the first 16 hex digits of the SHA-256 of its 32 public bytes: a name, not a proof.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.crypto.framing import frame, from_base64url, sha256, to_base64url
from shared.crypto.private_keys import load_private_key, save_private_key
from shared.errors import SignatureInvalid

if TYPE_CHECKING:
    from pathlib import Path

PREFIX: Final = b"keyfob/signature/1\x00"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_ID_DIGITS: Final = 16


def key_id_of(public: bytes) -> str:
    """Name a public key's 32 bytes: 16 hex digits."""
    return sha256(public).hex()[:KEY_ID_DIGITS]


class VerifyKey:
    """The public half: verifies, compares and travels; nothing about it is secret."""

    __slots__ = ("_key", "key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        """Take the 32 public bytes; `ValueError` for another length."""
        self._key = Ed25519PublicKey.from_public_bytes(raw)
        self.raw = raw
        self.key_id = key_id_of(raw)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Read `to_base64`'s form; `ValueError`, which never quotes the text, for anything else."""
        return cls(from_base64url(text))

    def to_base64(self) -> str:
        """Write the 32 public bytes in base64url without padding, 43 characters."""
        return to_base64url(self.raw)

    def verify(self, signature: bytes, domain: bytes, *parts: bytes) -> None:
        """Raise `SignatureInvalid` unless `signature` was made over exactly this domain and these parts."""
        self.verify_bytes(signature, PREFIX + frame(domain, *parts))

    def verify_bytes(self, signature: bytes, message: bytes) -> None:
        """Verify over bytes as they are: only for formats that bring their own framing, such as JWS."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise SignatureInvalid from None

    def __eq__(self, other: object) -> bool:
        # Public bytes, so an ordinary comparison does.
        return isinstance(other, VerifyKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self.key_id})"


class SigningKey:
    """The private half; it shows only its id and can't be pickled or copied."""

    __slots__ = ("_key", "verify_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Wrap a private key."""
        self._key = key
        self.verify_key = VerifyKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM or base64 file; `KeyFileRefused` if it is readable by others or isn't an Ed25519 key."""
        # The library declares its keys as abstract classes.
        return cls(load_private_key(path, Ed25519PrivateKey))  # type: ignore[type-abstract]

    def save(self, path: Path) -> None:
        """Write PKCS #8 PEM, mode 0600, atomically."""
        save_private_key(path, self._key)

    @property
    def key_id(self) -> str:
        """The short name that verifiers know this key by."""
        return self.verify_key.key_id

    def sign(self, domain: bytes, *parts: bytes) -> bytes:
        """64 bytes over the domain and the parts, framed as the module says."""
        return self._key.sign(PREFIX + frame(domain, *parts))

    def sign_bytes(self, message: bytes) -> bytes:
        """Sign bytes as they are: only for formats that bring their own framing, such as JWS."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        message = "a private key is not pickled or copied"
        raise TypeError(message)
