"""A signature holds for one key, one use and one list of parts, and for nothing else."""

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.crypto import SigningKey, VerifyKey
from shared.crypto.signing import PREFIX
from shared.errors import SignatureInvalid

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
parts = st.lists(st.binary(max_size=30), max_size=4)


@given(st.binary(max_size=20), parts)
def test_what_was_signed_verifies(domain: bytes, signed: list[bytes]) -> None:
    KEY.verify_key.verify(KEY.sign(domain, *signed), domain, *signed)


@given(st.integers(0, 64 * 8 - 1))
def test_a_flipped_bit_in_the_signature_is_refused(bit: int) -> None:
    signature = bytearray(KEY.sign(b"use", b"part"))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureInvalid):
        KEY.verify_key.verify(bytes(signature), b"use", b"part")


@pytest.mark.parametrize(
    ("domain", "signed"),
    [
        (b"another use", (b"ab", b"c")),
        (b"use", (b"a", b"bc")),
        (b"use", (b"c", b"ab")),
        (b"use", (b"ab",)),
        (b"use", (b"ab", b"c", b"")),
        (b"useab", (b"c",)),
    ],
)
def test_another_use_or_another_split_is_refused(domain: bytes, signed: tuple[bytes, ...]) -> None:
    signature = KEY.sign(b"use", b"ab", b"c")
    with pytest.raises(SignatureInvalid):
        KEY.verify_key.verify(signature, domain, *signed)


def test_another_key_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        OTHER.verify_key.verify(KEY.sign(b"use", b"x"), b"use", b"x")


@pytest.mark.parametrize("signature", [b"", b"x" * 63, b"x" * 65, b"\x00" * 64])
def test_bytes_that_are_no_signature_are_refused_in_the_same_way(signature: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        KEY.verify_key.verify(signature, b"use")


def test_what_is_signed_can_never_be_a_jws() -> None:
    assert b"/" in PREFIX
    assert b"\x00" in PREFIX


def test_a_verify_key_travels_as_text() -> None:
    text = KEY.verify_key.to_base64()
    assert len(text) == 43
    assert VerifyKey.from_base64(text) == KEY.verify_key
    assert VerifyKey.from_base64(text).key_id == KEY.key_id


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 43 + "=", "!" * 43, "A" * 44])
def test_text_that_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the library's
        VerifyKey.from_base64(text)


def test_keys_tell_each_other_apart() -> None:
    assert KEY.verify_key != OTHER.verify_key
    assert len({KEY.verify_key, OTHER.verify_key, VerifyKey(KEY.verify_key.raw)}) == 2


def test_a_signing_key_shows_only_its_id_and_is_never_copied(tmp_path: Path) -> None:
    assert repr(KEY) == f"SigningKey({KEY.key_id})"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            duplicate(KEY)


def test_a_saved_key_is_the_same_key(tmp_path: Path) -> None:
    KEY.save(tmp_path / "signing.pem")
    assert SigningKey.load(tmp_path / "signing.pem").verify_key == KEY.verify_key
