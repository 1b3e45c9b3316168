"""Redaction: MB/s over a clinical result of 10 MB with 20 values, beside `bytes.find` of the same.

Baselines of the same run, over the same bytes: `bytes.find` of the 20 values as they are (one encoding of many), and
of one short string for each of their encodings, which is what a search without a sieve costs.
"""

from __future__ import annotations

import random
import string
import time
from collections import Counter
from collections.abc import Callable

from services.gateway.redaction import Redaction, Redactor, Secret
from services.gateway.redaction.anchors import anchors_of
from services.gateway.redaction.writings import Medium, writings
from shared.crypto.secret import SecretBytes
from tests.unit.gateway.redaction.clinical import messages

SIZE = 10_000_000
CHUNK = 64 * 1024
VALUES = 20
TRIES = 3


def values() -> list[bytes]:
    """Ten tokens, ten connection strings: 24 to 80 characters."""
    rng = random.Random(4)  # noqa: S311 - the same in each run
    tokens = ["".join(rng.choices(string.ascii_letters + string.digits + "-_/+!", k=24 + at)) for at in range(VALUES)]
    urls = [f"postgresql://app:{token[:24]}@db.example:5432/records" for token in tokens[VALUES // 2 :]]
    return [text.encode() for text in (*tokens[: VALUES // 2], *urls)]


def mb_per_s(work: Callable[[], object], size: int) -> float:
    """The fastest of a few tries: other work on the machine only ever adds."""
    spent = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return size / min(spent) / 1e6


def streamed(redactor: Redactor, data: bytes) -> None:
    """Feed `data` as it comes from a socket."""
    for at in range(0, len(data), CHUNK):
        redactor.feed(data[at : at + CHUNK])
    redactor.finish()


async def run() -> dict[str, float]:
    """Measure building, a clean result, one with values in it, and the baselines."""
    secrets = values()
    data = b"".join(messages(SIZE))
    # A hundred places, spread over all of it.
    lines = data.splitlines(keepends=True)
    for at in range(100):
        lines[at * len(lines) // 100] += b'{"echo": "' + secrets[at % VALUES] + b'"}\n'
    dirty = b"".join(lines)
    started = time.perf_counter()
    redaction = Redaction([Secret(f"reference/{n}", SecretBytes(one)) for n, one in enumerate(secrets)])
    built_ms = (time.perf_counter() - started) * 1e3
    every = [one for text in secrets for one in anchors_of(writings("r", text, Medium.JSON))]
    literals = [bytes(anchor.literal) for anchor in every]
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    figures = {
        "redaction_build_ms": built_ms,
        "redaction_mb_per_s": mb_per_s(lambda: streamed(redaction.results(), data), len(data)),
        "redaction_whole_mb_per_s": mb_per_s(lambda: redaction.message(data), len(data)),
        "redaction_100_hits_mb_per_s": mb_per_s(lambda: streamed(redaction.results(), dirty), len(dirty)),
        "redaction_stderr_mb_per_s": mb_per_s(lambda: streamed(redaction.stderr(), data), len(data)),
        "bytes_find_20_values_mb_per_s": mb_per_s(lambda: [c.find(one) for c in chunks for one in secrets], len(data)),
        "bytes_find_encodings_mb_per_s": mb_per_s(lambda: [c.find(one) for c in chunks for one in literals], len(data)),
    }
    redaction.take_counts()
    redaction.message(dirty)
    print(f"{len(literals)} anchors; {Counter(redaction.take_counts()).total()} places in the result with values")
    return figures
