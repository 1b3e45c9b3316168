"""Sealed bytes open for one key under one context, and every other attempt fails in the same way."""

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto import SealingKey, SealingPublicKey, seal
from shared.crypto.sealing import OVERHEAD_BYTES
from shared.errors import SealInvalid
from tests.thoroughness import examples

KEY = SealingKey.generate()
OTHER = SealingKey.generate()


@given(st.binary(max_size=300), st.binary(max_size=60))
@settings(max_examples=examples(40))
def test_what_was_sealed_opens(plaintext: bytes, context: bytes) -> None:
    sealed = seal(plaintext, KEY.public, context=context)
    assert KEY.open(sealed, context=context) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES


def test_mutable_bytes_are_sealed_without_a_copy_that_nobody_wipes() -> None:
    assert KEY.open(seal(bytearray(b"value"), KEY.public, context=b""), context=b"") == b"value"


def test_the_same_value_is_never_sealed_to_the_same_bytes() -> None:
    assert seal(b"x", KEY.public, context=b"c") != seal(b"x", KEY.public, context=b"c")


SEALED = seal(b"a value of some length", KEY.public, context=b"context")


@given(st.integers(0, len(SEALED) * 8 - 1))
@settings(max_examples=examples(60))
def test_a_flipped_bit_does_not_open(bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    # The top bit of an X25519 public key is ignored by the exchange (RFC 7748 §5) but not by HPKE's key schedule.
    with pytest.raises(SealInvalid, match=str(SealInvalid())):
        KEY.open(bytes(damaged), context=b"context")


@pytest.mark.parametrize(
    "sealed",
    [b"", b"short", SEALED[:-1], SEALED + b"x", b"\x00" * 80, SEALED[:32]],
    ids=["nothing", "short", "cut", "longer", "zeros", "only the key"],
)
def test_other_bytes_do_not_open_in_the_same_way(sealed: bytes) -> None:
    with pytest.raises(SealInvalid):
        KEY.open(sealed, context=b"context")


def test_another_key_or_context_does_not_open_in_the_same_way() -> None:
    for key, context in ((OTHER, b"context"), (KEY, b"another"), (KEY, b"")):
        with pytest.raises(SealInvalid) as refused:
            key.open(SEALED, context=context)
        assert refused.value.__cause__ is None


def test_a_public_key_travels_as_text() -> None:
    assert SealingPublicKey.from_base64(KEY.public.to_base64()) == KEY.public
    assert KEY.public != OTHER.public
    assert len({KEY.public, SealingPublicKey(KEY.public.raw)}) == 1


def test_a_saved_key_opens_what_was_sealed_to_it(tmp_path: Path) -> None:
    KEY.save(tmp_path / "sealing.pem")
    assert SealingKey.load(tmp_path / "sealing.pem").open(SEALED, context=b"context") == b"a value of some length"


def test_a_sealing_key_shows_only_its_id_and_is_never_copied() -> None:
    assert repr(KEY) == f"SealingKey({KEY.public.key_id})"
    assert repr(KEY.public) == f"SealingPublicKey({KEY.public.key_id})"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            duplicate(KEY)
