"""A record's signature covers where it stands, what it is and every byte of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.signatures import from_header, record_signer, record_verifies, to_header
from shared.crypto.signing import SigningKey

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
RECORD: dict[str, Any] = {"topic": "keyfob.policy.v1", "type_": "grant.v1", "key": "grant/1", "payload": b'{"seq":7}'}
KEY_ID, SIGNATURE = record_signer(KEY)(**RECORD)


def test_a_signed_record_verifies_under_the_key_that_it_names() -> None:
    assert KEY.key_id == KEY_ID
    assert record_verifies(KEY.verify_key, SIGNATURE, **RECORD)


@pytest.mark.parametrize(
    "change",
    [
        {"topic": "keyfob.catalog.v1"},
        {"type_": "binding.v1"},
        {"key": "grant/2"},
        {"payload": b'{"seq":8}'},
        {"payload": b'{"seq":7} '},
        {"key": "", "type_": "grant.v1grant/1"},
    ],
    ids=["another topic", "another type", "another key", "a newer commit", "a space more", "parts run together"],
)
def test_no_part_of_it_can_be_exchanged(change: dict[str, Any]) -> None:
    assert not record_verifies(KEY.verify_key, SIGNATURE, **(RECORD | change))


def test_another_key_vouches_for_nothing() -> None:
    assert not record_verifies(OTHER.verify_key, SIGNATURE, **RECORD)


def test_a_signature_for_another_use_is_none() -> None:
    parts = [part if isinstance(part, bytes) else part.encode() for part in RECORD.values()]
    assert not record_verifies(KEY.verify_key, KEY.sign(b"keyfob/receipt/v1", *parts), **RECORD)


@given(st.binary(max_size=80))
def test_whatever_stands_in_its_place_is_refused_and_never_fails(signature: bytes) -> None:
    assert not record_verifies(KEY.verify_key, signature, **RECORD)


@given(st.binary(min_size=1, max_size=80))
def test_a_header_brings_back_what_was_put_in(signature: bytes) -> None:
    assert from_header(to_header(signature)) == signature


@given(st.none() | st.text(max_size=90))
def test_a_header_that_can_not_be_read_is_no_signature(text: str | None) -> None:
    found = from_header(text)
    assert found is None or to_header(found) == text
