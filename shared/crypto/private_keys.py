"""Private keys of 32 bytes as text: PKCS #8 PEM (RFC 5958, RFC 7468), or the raw bytes in base64."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shared.crypto.key_files import KeyFileRefused, read_key_file, write_key_file

if TYPE_CHECKING:
    from pathlib import Path

Key = TypeVar("Key", Ed25519PrivateKey, X25519PrivateKey)


def load_private_key(path: Path, kind: type[Key]) -> Key:
    """Load the key in `path`; `KeyFileRefused` if others may read it or it is another kind of key."""
    content = read_key_file(path)
    try:
        key = _parse(content, kind)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, kind):
        wanted = kind.__name__.removesuffix("PrivateKey")
        detail = f"{path} does not hold an {wanted} private key in PEM or base64."
        # Not chained: a parser's message may quote what it could not read.
        raise KeyFileRefused(detail)
    return key


def _parse(content: bytes, kind: type[Key]) -> object:
    if content.startswith(b"-----BEGIN"):
        # An encrypted one is refused: a passphrase would have to lie beside it.
        return load_pem_private_key(content, password=None)
    return kind.from_private_bytes(binascii.a2b_base64(content.strip(), strict_mode=True))


def save_private_key(path: Path, key: Ed25519PrivateKey | X25519PrivateKey) -> None:
    """Write `key` to `path` as PKCS #8 PEM with mode 0600: the old file or the new one, never a part."""
    write_key_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
