"""What is sealed to the recovery key gives back exactly the installation's key, and only to that recovery key."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto.framing import frame, sha256
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.sealing import seal
from shared.crypto.secret import SecretBytes
from shared.custody import recovery
from shared.custody.keks import Kek, save_new_kek
from shared.custody.key_text import KeyKind, KeyTextInvalid, write_key_text
from shared.custody.recovery import (
    BLOB_BYTES,
    RecoveryKey,
    RecoveryPublicKey,
    read_recovery_ids,
    recover,
    seal_for_recovery,
)
from shared.errors import SealInvalid
from tests.thoroughness import examples
from tests.unit.custody.make_golden import GOLDEN, counting_kek

KEK = Kek.generate()
KEY, OTHER = RecoveryKey.generate(), RecoveryKey.generate()
BLOB = seal_for_recovery(KEK, KEY.public)


def refused(blob: bytes, key: RecoveryKey = KEY) -> None:
    with pytest.raises(SealInvalid) as error:
        recover(blob, key)
    assert (str(error.value), error.value.__cause__) == (str(SealInvalid()), None)


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=examples(30))
def test_recovering_restores_exactly_the_key(raw: bytes) -> None:
    kek = Kek(SecretBytes(raw))
    blob = seal_for_recovery(kek, KEY.public)
    assert len(blob) == BLOB_BYTES
    restored = recover(blob, KEY)
    assert restored.matches(kek)
    assert restored.to_text() == kek.to_text()


def test_the_public_half_alone_as_text_makes_a_blob_and_the_text_of_the_other_opens_it() -> None:
    public, private = RecoveryPublicKey.from_text(KEY.public.to_text()), RecoveryKey.from_text(KEY.to_text())
    assert recover(seal_for_recovery(KEK, public), private).matches(KEK)


def test_a_blob_tells_which_recovery_key_to_fetch_from_the_safe() -> None:
    ids = read_recovery_ids(BLOB)
    assert (ids.kek, ids.recovery) == (KEK.key_id, KEY.public.key_id)


def test_another_recovery_key_does_not_open_under_its_own_name_either() -> None:
    refused(BLOB, OTHER)
    refused(BLOB[:11] + OTHER.public.id_bytes + BLOB[21:], OTHER)


def test_a_flipped_bit_anywhere_does_not_open() -> None:
    for at in range(len(BLOB)):
        for bit in (0, 7):
            refused(BLOB[:at] + bytes([BLOB[at] ^ 1 << bit]) + BLOB[at + 1 :])


def test_other_bytes_do_not_open_and_have_no_ids() -> None:
    for odd in (b"", BLOB[:-1], BLOB + b"x", b"\0" + BLOB[1:], b"\2" + BLOB[1:]):
        refused(odd)
        with pytest.raises(SealInvalid):
            read_recovery_ids(odd)


def test_the_blob_of_one_key_does_not_pass_for_anothers() -> None:
    other = Kek.generate()
    refused(BLOB[:1] + other.id_bytes + BLOB[11:])


def test_a_blob_that_names_one_key_and_holds_another_is_refused() -> None:
    forged = seal(b"k" * 32, KEY.public.sealing, context=recovery._info(KEK.id_bytes, KEY.public))
    refused(BLOB[:21] + forged)


def test_what_was_sealed_for_another_purpose_is_no_blob() -> None:
    with KEK.raw() as raw, raw.reveal() as view:
        elsewhere = seal(view, KEY.public.sealing, context=b"keyfob/answer/1")
    refused(BLOB[:21] + elsewhere)


def test_two_blobs_of_one_key_are_different_and_show_nothing_of_it() -> None:
    again = seal_for_recovery(KEK, KEY.public)
    assert again[21:] != BLOB[21:]
    with KEK.raw() as raw, raw.reveal() as view:
        assert bytes(view) not in BLOB


def test_a_blob_of_format_1_opens_for_ever() -> None:
    golden = json.loads((GOLDEN / "recovery-1.json").read_text())
    key = RecoveryKey.from_text(golden["recovery_key"])
    assert key.public.to_text() == golden["recovery_public"]
    assert recover(bytes.fromhex(golden["blob"]), key).matches(counting_kek())


@pytest.mark.parametrize("half", [RecoveryKey, RecoveryPublicKey])
def test_each_half_is_refused_in_the_place_of_the_other_and_of_the_installations_key(
    half: type[RecoveryKey | RecoveryPublicKey],
) -> None:
    texts = {RecoveryKey: KEY.to_text(), RecoveryPublicKey: KEY.public.to_text(), Kek: KEK.to_text()}
    assert half.from_text(texts.pop(half)).to_text()
    for text in texts.values():
        with pytest.raises(KeyTextInvalid, match="is needed here"):
            half.from_text(text)


@pytest.mark.parametrize("kind", [KeyKind.RECOVERY_KEY, KeyKind.RECOVERY_PUBLIC])
def test_an_id_of_another_key_is_refused_although_the_checksum_fits(kind: KeyKind) -> None:
    mixed = write_key_text(kind, OTHER.public.id_bytes, bytes(range(32)))
    with pytest.raises(KeyTextInvalid, match="two keys"):
        (RecoveryKey if kind is KeyKind.RECOVERY_KEY else RecoveryPublicKey).from_text(mixed)


def test_both_halves_have_one_id_and_show_only_that() -> None:
    assert repr(KEY) == f"RecoveryKey({KEY.public.key_id})"
    assert repr(KEY.public) == f"RecoveryPublicKey({KEY.public.key_id})"
    assert KEY.public.key_id != OTHER.public.key_id
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            duplicate(KEY)


def test_a_recovery_key_is_kept_like_any_private_key(tmp_path: Path) -> None:
    path = tmp_path / "recovery"
    KEY.save_new(path)
    assert recover(BLOB, RecoveryKey.load(path)).matches(KEK)
    assert path.stat().st_mode & 0o7777 == 0o600
    with pytest.raises(KeyFileRefused, match="never written over"):
        OTHER.save_new(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileRefused, match="chmod 600"):
        RecoveryKey.load(path)


def test_a_file_with_another_kind_of_key_is_called_by_its_name(tmp_path: Path) -> None:
    save_new_kek(tmp_path / "kek", KEK)
    with pytest.raises(KeyFileRefused, match="This is an installation key, but a recovery key is needed"):
        RecoveryKey.load(tmp_path / "kek")


def test_a_point_that_no_key_has_is_refused_before_anything_is_sealed_to_it() -> None:
    key_id = sha256(frame(recovery.ID_DOMAIN, bytes(32)))[:10]
    with pytest.raises(KeyTextInvalid, match="not the public half of any"):
        RecoveryPublicKey.from_text(write_key_text(KeyKind.RECOVERY_PUBLIC, key_id, bytes(32)))
