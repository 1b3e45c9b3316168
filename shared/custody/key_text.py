"""Keys of 32 bytes as text that a person can copy, with one spelling for one key.

    keyfob-kek-1-<id>-<group>-<group>-<group>-<group>-<group>-<group>-<group>

    id       16 characters, the 10 bytes of the key's id
    groups   7 of 8 characters, 35 bytes: the key (32) | checksum (3)
    checksum first 3 bytes of SHA-256 over frame("keyfob/key-text/1", kind, id, key)

Characters are base32 (RFC 4648 §6) in lower case: there is no 0, 1, 8 or 9 to take for a letter. 10 and 35 bytes fill
their characters exactly, so there is neither padding nor a spare bit to spell in two ways. The checksum finds all but
one of 16 million mistyped texts, before anything else could fail for a reason that nobody understands; whoever reads
the text then still compares the id with the one that follows from the key.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from shared.crypto.framing import frame, sha256
from shared.errors import BadRequest

if TYPE_CHECKING:
    from shared.crypto.secret import SecretBytes

VERSION: Final = "1"
DOMAIN: Final = b"keyfob/key-text/1"
KEY_BYTES: Final = 32
ID_BYTES: Final = 10
"""80 bits: nobody finds a second key with the id of a first one, and 16 characters can still be compared by eye."""
CHECKSUM_BYTES: Final = 3
GROUP: Final = 8
"""Characters."""

_TEXT: Final = re.compile(
    r"keyfob-(?P<kind>kek|recovery-key|recovery-public)-(?P<version>[0-9]+)"
    r"-(?P<id>[a-z2-7]{16})(?P<groups>(?:-[a-z2-7]{8}){7})",
    re.ASCII,
)


class KeyKind(StrEnum):
    """What a text is the key of."""

    KEK = "kek"
    RECOVERY_KEY = "recovery-key"
    RECOVERY_PUBLIC = "recovery-public"


NAMES: Final = {
    KeyKind.KEK: "an installation key",
    KeyKind.RECOVERY_KEY: "a recovery key",
    KeyKind.RECOVERY_PUBLIC: "the public half of a recovery key",
}
"""How sentences speak of each kind."""


class KeyTextInvalid(BadRequest):
    """Raised for text that is no key of the wanted kind; the detail says what to look at and never quotes it."""

    kind = "key-text-invalid"
    title = "The text is not a key"


@dataclass(frozen=True, slots=True)
class KeyText:
    """What a text said: the id that it claims, in 16 characters, and the key's 32 bytes."""

    key_id: str
    key: bytearray = field(repr=False)


def id_to_text(raw: bytes) -> str:
    """An id's 10 bytes in 16 characters."""
    return base64.b32encode(raw).decode().lower()


def id_from_text(text: str) -> bytes:
    """Strict inverse of `id_to_text`; `ValueError`, which does not quote the text, for any other spelling."""
    try:
        raw = base64.b32decode(text.upper())
    except (binascii.Error, ValueError):
        raw = b""
    # Upper case and non-ASCII that `upper` folds into ASCII decode too, and would be a second spelling.
    if len(raw) != ID_BYTES or id_to_text(raw) != text:
        raise ValueError("not a key id: 16 characters of a-z and 2-7")
    return raw


def is_key_id(text: str) -> bool:
    """Whether `text` is spelled as an id."""
    try:
        id_from_text(text)
    except ValueError:
        return False
    return True


def write_key_text(kind: KeyKind, key_id: bytes, key: SecretBytes | bytes) -> str:
    """The text of a key with its id; `key` must have 32 bytes, `key_id` 10. The result is as secret as the key."""
    if isinstance(key, bytes):
        raw = key
    else:
        with key.reveal() as view:
            raw = bytes(view)
    if len(raw) != KEY_BYTES or len(key_id) != ID_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes and its id {ID_BYTES}")
    body = base64.b32encode(raw + _checksum(kind, key_id, raw)).decode().lower()
    groups = (body[at : at + GROUP] for at in range(0, len(body), GROUP))
    return "-".join((f"keyfob-{kind}-{VERSION}", id_to_text(key_id), *groups))


def read_key_text(text: str, kind: KeyKind) -> KeyText:
    """Read a key of this kind; `KeyTextInvalid` for all else. The caller compares the id with the key's own.

    Not even white space around it is forgiven: whoever reads a file strips its line break.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise KeyTextInvalid(f"This is not {NAMES[kind]}: one starts with keyfob-{kind}-{VERSION}- and has 8 groups.")
    if found["kind"] != kind:
        raise KeyTextInvalid(f"This is {NAMES[KeyKind(found['kind'])]}, but {NAMES[kind]} is needed here.")
    if found["version"] != VERSION:
        raise KeyTextInvalid("This key is written in a form that this version of Keyfob does not know: upgrade.")
    body = base64.b32decode(found["groups"].replace("-", "").upper())
    key, checksum = body[:KEY_BYTES], body[KEY_BYTES:]
    if checksum != _checksum(kind, id_from_text(found["id"]), key):
        raise KeyTextInvalid("The checksum does not fit: a character of the key was mistyped or exchanged.")
    return KeyText(found["id"], bytearray(key))


def _checksum(kind: KeyKind, key_id: bytes, key: bytes) -> bytes:
    return sha256(frame(DOMAIN, kind.encode(), key_id, key))[:CHECKSUM_BYTES]
