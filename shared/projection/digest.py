"""A digest of a whole set of records that can be kept up to date record by record.

The sum modulo 2^256 of SHA-256(key ‖ 0x00 ‖ payload) over all live records: adding and removing one is a single
addition, whatever the size of the set (Bellare and Micciancio, "A new paradigm for collision-free hashing", AdHash).
Only the holder of the policy key decides which records exist, and the digest travels in a signed tick, so the
attack that AdHash is open to (choosing many inputs at will) is not available to whoever hides records from a topic.
"""

from __future__ import annotations

import hashlib

_MODULUS = 1 << 256


def entry(key: str, payload: bytes) -> int:
    """What one live record adds to the digest of its set."""
    # Ids hold no NUL, so nothing can move from the key into the payload.
    return int.from_bytes(hashlib.sha256(key.encode() + b"\0" + payload).digest())


def add(digest: int, one: int) -> int:
    """The digest of the set with one more record."""
    return (digest + one) % _MODULUS


def remove(digest: int, one: int) -> int:
    """The digest of the set without a record that was in it."""
    return (digest - one) % _MODULUS


def text(digest: int) -> str:
    """64 lower-case hexadecimal digits, as ticks carry it."""
    return f"{digest:064x}"
