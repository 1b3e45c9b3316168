"""Only what a known key signed counts, and it is checked when it is first used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.bus.signatures import record_signer
from shared.crypto.signing import SigningKey
from shared.projection.changes import Upserted
from shared.projection.fold import Fold
from shared.projection.records import Authority, TypedRecord, registry
from tests.fakes.state_topic import Lamp, committed, lamp, numbered, with_header

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
AUTHORITY = Authority({KEY.key_id: KEY.verify_key})


def typed(message: Any) -> TypedRecord:
    (change,) = Fold(registry(Lamp), lambda _: None).feed(numbered([message]), at_end=True)
    assert isinstance(change, Upserted)
    return change.record


def signed(key: SigningKey = KEY) -> Any:
    return committed(lamp("a", 1, colour="red"), signer=record_signer(key))[0]


def test_a_record_that_a_known_key_signed_counts() -> None:
    assert AUTHORITY.verified(typed(signed()))


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(committed(lamp("a", 1))[0], id="unsigned"),
        pytest.param(signed(OTHER), id="unknown-key"),
        pytest.param(with_header(signed(OTHER), "ce_keyid", KEY.key_id.encode()), id="claims-another-key"),
        pytest.param(with_header(signed(), "ce_signature", b"!!"), id="no-signature-at-all"),
        pytest.param(with_header(signed(), "ce_signature", None), id="signature-removed"),
        pytest.param(with_header(signed(), "ce_keyid", None), id="key-id-removed"),
        pytest.param(replace(signed(), value=signed().value.replace(b"red", b"blue")), id="payload-changed"),
        pytest.param(replace(signed(), value=signed().value + b" "), id="payload-respelled"),
        pytest.param(replace(signed(), topic="keyfob.other.v1"), id="moved-to-another-topic"),
    ],
)
def test_anything_else_does_not(message: Any) -> None:
    assert not AUTHORITY.verified(typed(message))


def test_a_signature_does_not_fit_another_type_or_key() -> None:
    class Lantern(Lamp):
        TYPE = "keyfob.tests.lantern.v1"

    record = typed(signed())
    assert AUTHORITY.verified(record)
    assert not AUTHORITY.verified(replace(record, type=Lantern.TYPE))
    assert not AUTHORITY.verified(replace(record, key="lamp/b"))


def test_the_verdict_is_remembered_for_the_same_authority_only() -> None:
    calls = 0

    class Counting:
        def verify(self, *_: bytes) -> None:
            nonlocal calls
            calls += 1

    record = typed(signed())
    counting: Any = Authority({KEY.key_id: Counting()})  # type: ignore[dict-item]
    assert all(counting.verified(record) for _ in range(3))
    assert calls == 1
    assert not Authority({}).verified(record)
