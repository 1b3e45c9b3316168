"""The installation's key, sealed to a recovery key that lies offline: what is left when its file is lost.

    blob = 0x01 | KEK id (10) | recovery key's id (10) | HPKE to the recovery key of the KEK's 32 bytes     101 bytes
    info = frame("keyfob/recovery/1", KEK id, recovery public key (32))

HPKE as in `shared.crypto.sealing`; `frame` in `shared.crypto.framing`. Making a blob takes only the public half, so a
service can renew it at every rotation while the other half stays in a safe. A recovery key's id is the first 10 bytes
of SHA-256 over frame("keyfob/recovery-id/1", public key), the same for both halves.

Anybody who can write to the database could put a blob there with a key of his own: `recover` gives the key that the
blob names, and whoever restores compares that id with those that rows name (`Keyring.expect`), and opens one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared.crypto.framing import frame, sha256
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.sealing import OVERHEAD_BYTES, SealingKey, SealingPublicKey, seal
from shared.crypto.secret import SecretBytes
from shared.custody.keks import Kek
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
from shared.errors import SealInvalid

if TYPE_CHECKING:
    from pathlib import Path

FORMAT: Final = b"\x01"
DOMAIN: Final = b"keyfob/recovery/1"
ID_DOMAIN: Final = b"keyfob/recovery-id/1"

_KEK_ID: Final = slice(1, 1 + ID_BYTES)
_RECOVERY_ID: Final = slice(_KEK_ID.stop, _KEK_ID.stop + ID_BYTES)
_SEALED: Final = slice(_RECOVERY_ID.stop, None)
BLOB_BYTES: Final = _RECOVERY_ID.stop + KEY_BYTES + OVERHEAD_BYTES


class RecoveryPublicKey:
    """The half that blobs are made with; nothing about it is secret, but whose it is matters."""

    __slots__ = ("id_bytes", "key_id", "sealing")

    def __init__(self, sealing: SealingPublicKey) -> None:
        """Wrap a public key."""
        self.sealing = sealing
        self.id_bytes = sha256(frame(ID_DOMAIN, sealing.raw))[:ID_BYTES]
        self.key_id = id_to_text(self.id_bytes)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `to_text`'s form; `KeyTextInvalid` for anything else."""
        found = read_key_text(text, KeyKind.RECOVERY_PUBLIC)
        public = cls(SealingPublicKey(bytes(found.key)))
        _compare_ids(public.key_id, found.key_id)
        try:
            seal(b"", public.sealing, context=b"")
        except ValueError:
            # A point of low order (RFC 7748 §6.1): better said now than at the first rotation.
            raise KeyTextInvalid("This is not the public half of any recovery key.") from None
        return public

    def to_text(self) -> str:
        """The key as text (`shared.custody.key_text`), to be handed to `keyfob keys generate --recovery`."""
        return write_key_text(KeyKind.RECOVERY_PUBLIC, self.id_bytes, self.sealing.raw)

    def __repr__(self) -> str:
        return f"RecoveryPublicKey({self.key_id})"


class RecoveryKey:
    """The half that lies offline: it opens every blob that was made with its public half."""

    __slots__ = ("_raw", "public", "sealing")

    def __init__(self, raw: SecretBytes) -> None:
        """Take over the 32 private bytes (RFC 7748); `ValueError` for another length."""
        with raw.reveal() as view:
            self.sealing = SealingKey(X25519PrivateKey.from_private_bytes(view))
        self._raw = raw
        self.public = RecoveryPublicKey(self.sealing.public)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(SecretBytes(X25519PrivateKey.generate().private_bytes_raw()))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read `to_text`'s form; `KeyTextInvalid`, which never quotes the text, for anything else."""
        found = read_key_text(text, KeyKind.RECOVERY_KEY)
        key = cls(SecretBytes.taking(found.key))
        _compare_ids(key.public.key_id, found.key_id)
        return key

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key's file; `KeyFileRefused` if others may read it or it holds no recovery key as text."""
        line = read_key_line(path)
        try:
            return cls.from_text(line)
        except KeyTextInvalid as problem:
            raise KeyFileRefused(f"{path}: {problem.detail}") from None

    def save_new(self, path: Path) -> None:
        """Write the key to a new file with mode 0600; `KeyFileRefused` if there is one, which stays as it is."""
        write_new_key_line(path, self.to_text())

    def to_text(self) -> str:
        """The key as text, to be printed and locked away: whoever has it and the database has everything."""
        return write_key_text(KeyKind.RECOVERY_KEY, self.public.id_bytes, self._raw)

    def __repr__(self) -> str:
        return f"RecoveryKey({self.public.key_id})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a recovery key is not pickled or copied")


@dataclass(frozen=True, slots=True)
class RecoveryIds:
    """Which key a blob claims to restore and which recovery key it claims to need, as ids in text."""

    kek: str
    recovery: str


def read_recovery_ids(blob: bytes) -> RecoveryIds:
    """The ids in a blob, without opening it; `SealInvalid` for bytes that are none of a known format."""
    _check(blob)
    return RecoveryIds(id_to_text(blob[_KEK_ID]), id_to_text(blob[_RECOVERY_ID]))


def seal_for_recovery(kek: Kek, public: RecoveryPublicKey) -> bytes:
    """The blob of an installation key; it holds nothing secret for anybody without the recovery key."""
    with kek.raw() as raw, raw.reveal() as view:
        sealed = seal(view, public.sealing, context=_info(kek.id_bytes, public))
    return FORMAT + kek.id_bytes + public.id_bytes + sealed


def recover(blob: bytes, key: RecoveryKey) -> Kek:
    """Restore the installation key that a blob names.

    `SealInvalid` for another recovery key, a changed byte, or a blob that holds another key than it says. The caller
    still owes what the module says about blobs that somebody else made.
    """
    _check(blob)
    # In the seal's context the recovery key stands whole: its id in front is for people.
    if blob[_RECOVERY_ID] != key.public.id_bytes:
        raise SealInvalid
    raw = key.sealing.open(blob[_SEALED], context=_info(blob[_KEK_ID], key.public))
    kek = Kek(SecretBytes(raw))
    if kek.id_bytes != blob[_KEK_ID]:
        raise SealInvalid
    return kek


def _check(blob: bytes) -> None:
    if len(blob) != BLOB_BYTES or blob[:1] != FORMAT:
        raise SealInvalid


def _info(kek_id: bytes, public: RecoveryPublicKey) -> bytes:
    return frame(DOMAIN, kek_id, public.sealing.raw)


def _compare_ids(own: str, claimed: str) -> None:
    if own != claimed:
        raise KeyTextInvalid("The id in the text is not this key's: the text was put together from two keys.")
