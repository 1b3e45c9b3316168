"""What keeping a value sealed costs beside bare AES-GCM, and how fast installation keys can be changed, in memory.

Sealing and opening are timed in turn with bare AES-256-GCM of the same value under a key that is ready: what is on
top is the key derivation, the second layer, the framing and the randomness. Of each the fastest tenth counts, since
other work on the machine only ever adds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import psutil
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.crypto.secret import SecretBytes
from shared.custody import Kek, Keyring, Rewrapped, ValueContext

VALUE_BYTES: Final = 256
ROUNDS: Final = 400
CALLS: Final = 20
"""Calls that are timed as one, so that the clock itself costs nothing."""
DATA_KEYS: Final = 100_000
BATCH: Final = 1000
CONTEXT: Final = ValueContext("profile/7d2c1f0a", "server/patients-db", "DB_URL", 1)


def _timed_us(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        work()
    return (time.perf_counter() - started) / CALLS * 1e6


def _in_turn_us(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Time all of `works` in turn, so that a slow moment of the machine meets each of them."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            spent[name].append(_timed_us(work))
    return {name: sorted(each)[ROUNDS // 10] for name, each in spent.items()}


def sealing() -> dict[str, float]:
    """Time one value's way in and out, bare and ours."""
    raw, nonce, associated = os.urandom(VALUE_BYTES), os.urandom(12), CONTEXT.framed()
    bare = AESGCM(os.urandom(32))
    ciphertext = bare.encrypt(nonce, raw, associated)
    ring, value = Keyring(Kek.generate()), SecretBytes(raw)
    sealed = ring.seal(value, context=CONTEXT)
    costs = _in_turn_us(
        {
            "bare_encrypt": lambda: bare.encrypt(nonce, raw, associated),
            "bare_decrypt": lambda: bare.decrypt(nonce, ciphertext, associated),
            "seal": lambda: ring.seal(value, context=CONTEXT),
            "open": lambda: ring.open(sealed, context=CONTEXT),
        }
    )
    sealing_on_top, opening_on_top = costs["seal"] - costs["bare_encrypt"], costs["open"] - costs["bare_decrypt"]
    return {
        "seal_bare_us": costs["bare_encrypt"] + costs["bare_decrypt"],
        "seal_overhead_us": sealing_on_top,
        "open_overhead_us": opening_on_top,
        "seal_open_overhead_us": sealing_on_top + opening_on_top,
    }


def rewrapping() -> dict[str, float]:
    """Rewrap data keys one after the other, as a rotation does between its reads and writes: batch by batch."""
    old = Keyring(Kek.generate())
    both = Keyring(Kek.generate(), old.current)
    process, spent, resident = psutil.Process(), 0.0, []
    for first in range(0, DATA_KEYS, BATCH):
        spent += _rewrap_batch(range(first, first + BATCH), old, both)
        resident.append(process.memory_info().rss)
    return {
        "rewrap_keys_per_s": DATA_KEYS / spent,
        # From the end of the first batch, by which all that stays is there.
        "rewrap_memory_growth_mib": (resident[-1] - resident[0]) / 2**20,
    }


def _rewrap_batch(numbers: range, old: Keyring, both: Keyring) -> float:
    with SecretBytes(b"v") as value:
        contexts = [replace(CONTEXT, version=number) for number in numbers]
        wraps = [old.seal(value, context=context).wrap for context in contexts]
    started = time.perf_counter()
    renewed = [both.rewrap(wrap, context=context) for wrap, context in zip(wraps, contexts, strict=True)]
    spent = time.perf_counter() - started
    if not all(isinstance(one, Rewrapped) for one in renewed):
        raise AssertionError("a data key was not rewrapped")
    return spent


async def run() -> dict[str, float]:
    """All figures by name."""
    return sealing() | rewrapping()
