"""Clinical text without secrets passes byte for byte: 100 MB of it with KEYFOB_THOROUGH=1."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from services.gateway.redaction import Redaction, Secret
from shared.crypto.secret import SecretBytes
from tests.thoroughness import THOROUGH
from tests.unit.gateway.redaction.clinical import corpus, messages, records

SIZE = 100_000_000 if THOROUGH else 1_000_000

NEARLY = (
    # Values that almost stand in the corpus: its words with one other character, its hosts, users, codes and digits.
    b"postgresql://reader:Wint3r-2026!@db.hospital.example:5432/records",
    b"postgresql://postgres:postgres@db.hospital.example:5432/records",
    b"Paracetamol 500 mg 1-0-2",
    "Müller-Lüdenscheidt!".encode(),
    b'Patient reports "stabbing" pain (8/10)',
    b"Plan: CT, lab, re-check",
    b"1.2.840.10008.5.1.4.1.1.20",
    b"\\temp\\new\\report_0x2F.txt",
    "抗菌薬を開始しました".encode(),
    b"0123456789abcdef0123456789abcdef",
    b"sk-live-4eC39HqLyjWDarjtT1zdp7dc",
    b'{"resourceType": "Observation", "key": "s3cr3t-of-ours"}',
    bytes(range(200, 232)),
)


@pytest.fixture(scope="module")
def redaction() -> Redaction:
    rng = random.Random(7)  # noqa: S311 - the same in each run
    values = [*NEARLY, *(rng.randbytes(18).hex().encode() for _ in range(7))]
    marked = ("/key",)
    return Redaction([Secret(f"reference/{n}", SecretBytes(value), marked) for n, value in enumerate(values)])


def test_messages_pass_unchanged(redaction: Redaction) -> None:
    for line in messages(SIZE // 3):
        assert redaction.message(line) is line
    assert redaction.take_counts() == {}


@pytest.mark.parametrize("streams", ["results", "stderr"])
def test_a_stream_passes_unchanged(redaction: Redaction, streams: str) -> None:
    rng = random.Random(8)  # noqa: S311 - the same in each run
    redactor = getattr(redaction, streams)()
    went, came, held = bytearray(), bytearray(), 0
    for record in corpus(SIZE // 3):
        edge = rng.randrange(len(record))
        for chunk in (record[:edge], record[edge:]):
            went += chunk
            came += redactor.feed(chunk)
        held = max(held, redactor.held)
        # Compared as it goes: a hundred megabytes are not kept.
        assert came == went[: len(came)]
        del went[: len(came)], came[:]
    assert redactor.finish() == bytes(went)
    assert redaction.take_counts() == {}
    # The corpus has beginnings of values in it, so this was no walk-over.
    assert held > 0


def test_the_corpus_is_the_same_each_time_and_has_all_kinds() -> None:
    first, second = (b"".join(islice(records(3), 200)) for _ in range(2))
    assert first == second
    for sign in (
        b'\\"resourceType\\"',
        b"MSH|^~",
        b"Paracetamol",
        "患者".encode(),
        b"\\u60a3",
        b"%C3%BC",
        b"application/pdf",
    ):
        assert sign in first


def test_a_value_in_the_corpus_is_found_again(redaction: Redaction) -> None:
    lines = list(messages(200_000))
    lines[len(lines) // 2] = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"key s3cr3t-of-ours"}]}}\n'
    told = redaction.message(b"".join(lines))
    assert told == b"".join(lines).replace(b"s3cr3t-of-ours", b"[redacted]")
    assert redaction.take_counts() == {"reference/11": 1}
