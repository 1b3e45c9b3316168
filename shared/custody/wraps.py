"""Data keys (DEKs) as rows keep them: wrapped by the installation's key, without the value that they open.

    wrap       = 0x01 | KEK id (10) | DEK id (16) | nonce (12) | wrapped DEK (32) | tag (16)      87 bytes
    encryption = AES-256-GCM under the KEK's wrapper key (`shared.custody.keks`)
    associated = frame("keyfob/wrap/1", DEK id, KEK id) | what `shared.custody.contexts` frames

Frames joined are the frame of all their parts, so the associated data reads in one way only. The first byte is the
format: a new one gets a new number, and old ones stay readable.

The layer is separate so that changing the installation's key rewrites 87 bytes a value and never sees the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.crypto.framing import frame
from shared.custody.keks import NONCE_BYTES, TAG_BYTES
from shared.custody.key_text import ID_BYTES, KEY_BYTES
from shared.errors import SealInvalid

if TYPE_CHECKING:
    from shared.custody.contexts import SealContext
    from shared.custody.keks import Kek

FORMAT: Final = b"\x01"
DOMAIN: Final = b"keyfob/wrap/1"
DEK_BYTES: Final = KEY_BYTES
DEK_ID_BYTES: Final = 16
"""Random, so that no two data keys of any installation share one."""

_KEK_ID: Final = slice(1, 1 + ID_BYTES)
_DEK_ID: Final = slice(1 + ID_BYTES, 1 + ID_BYTES + DEK_ID_BYTES)
_WRAPPED: Final = slice(1 + ID_BYTES + DEK_ID_BYTES, None)
_BEFORE_DEK_ID: Final = frame(DOMAIN) + DEK_ID_BYTES.to_bytes(4, "big")
_BEFORE_KEK_ID: Final = ID_BYTES.to_bytes(4, "big")
WRAP_BYTES: Final = 1 + ID_BYTES + DEK_ID_BYTES + NONCE_BYTES + DEK_BYTES + TAG_BYTES


def kek_id_of(wrap: bytes) -> bytes:
    """The id of the key that a wrap claims to need; `SealInvalid` for bytes that are no wrap of a known format."""
    _check(wrap)
    return wrap[_KEK_ID]


def wrap_dek(dek: bytes | bytearray, dek_id: bytes, *, framed: bytes, kek: Kek) -> bytes:
    """Wrap a data key for the context `framed`; `KekWornOut` when `kek` has wrapped enough."""
    return FORMAT + kek.id_bytes + dek_id + kek.wrap(dek, _associated(dek_id, kek.id_bytes, framed))


def unwrap_dek(wrap: bytes, *, framed: bytes, kek: Kek) -> bytearray:
    """The data key in a wrap; `SealInvalid` for another key, another context or a changed byte. Wipe it after use."""
    _check(wrap)
    return kek.unwrap(wrap[_WRAPPED], _associated(wrap[_DEK_ID], wrap[_KEK_ID], framed))


def rewrap(wrap: bytes, *, context: SealContext, old: Kek, new: Kek) -> bytes:
    """The same data key wrapped by `new`; the value and its seal stay as they are. `SealInvalid` as in opening."""
    framed = context.framed()
    dek = unwrap_dek(wrap, framed=framed, kek=old)
    try:
        return wrap_dek(dek, wrap[_DEK_ID], framed=framed, kek=new)
    finally:
        dek[:] = bytes(len(dek))


def _check(wrap: bytes) -> None:
    if len(wrap) != WRAP_BYTES or wrap[:1] != FORMAT:
        raise SealInvalid


def _associated(dek_id: bytes, kek_id: bytes, framed: bytes) -> bytes:
    # What `frame` gives, with the parts that never change made once: this is half of the time that is ours.
    return b"".join((_BEFORE_DEK_ID, dek_id, _BEFORE_KEK_ID, kek_id, framed))
