"""The installation's key: made at random, named by an id that gives nothing away, kept in a file of its owner's."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.crypto.key_files import KeyFileRefused, write_key_file
from shared.crypto.secret import SecretBytes
from shared.custody import keks
from shared.custody.keks import Kek, KekWornOut, load_kek, save_new_kek
from shared.custody.key_text import KeyKind, KeyTextInvalid, write_key_text
from shared.errors import SealInvalid
from tests.thoroughness import examples

GOLDEN = Path(__file__).parent / "golden"
SEED = bytes(range(32))


def counting() -> Kek:
    return Kek(SecretBytes(SEED))


def test_the_text_and_id_of_a_known_key_never_change() -> None:
    assert f"{counting().to_text()}\n" == (GOLDEN / "kek-1.txt").read_text()


def test_the_golden_text_is_still_read() -> None:
    assert Kek.from_text((GOLDEN / "kek-1.txt").read_text().strip()).matches(counting())


def test_every_key_is_another_one() -> None:
    keys = [Kek.generate() for _ in range(20)]
    assert len({kek.key_id for kek in keys}) == 20
    assert not keys[0].matches(keys[1])


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=examples(30))
def test_text_gives_back_exactly_the_key(raw: bytes) -> None:
    kek = Kek(SecretBytes(raw))
    again = Kek.from_text(kek.to_text())
    assert again.matches(kek)
    assert again.key_id == kek.key_id


def test_the_id_is_neither_in_the_key_nor_the_key_in_the_id() -> None:
    kek = counting()
    assert kek.id_bytes not in SEED
    assert kek.id_bytes not in keks.HKDF(keks.SHA256(), 64, None, keks.WRAPPER_INFO).derive(SEED)


def test_an_id_of_another_key_is_refused_although_the_checksum_fits() -> None:
    mixed = write_key_text(KeyKind.KEK, Kek.generate().id_bytes, SEED)
    with pytest.raises(KeyTextInvalid, match="two keys"):
        Kek.from_text(mixed)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_has_thirty_two_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Kek(SecretBytes(bytes(length)))


@given(st.binary(min_size=1, max_size=80), st.binary(max_size=80))
@settings(max_examples=examples(40))
def test_what_a_key_wrapped_it_unwraps(key: bytes, associated: bytes) -> None:
    kek = counting()
    assert kek.unwrap(kek.wrap(key, associated), associated) == key


def test_the_key_wraps_with_a_key_of_its_own_and_never_twice_the_same() -> None:
    kek = counting()
    wrapped = kek.wrap(b"k" * 32, b"a")
    assert wrapped != kek.wrap(b"k" * 32, b"a")
    with pytest.raises(keks.InvalidTag):
        keks.AESGCM(SEED).decrypt(wrapped[:12], wrapped[12:], b"a")


def test_everything_but_the_whole_wrap_under_its_context_is_refused_in_one_way() -> None:
    kek = counting()
    wrapped = kek.wrap(b"k" * 32, b"a")
    for key, damaged, associated in [
        (Kek.generate(), wrapped, b"a"),
        (kek, wrapped, b"b"),
        (kek, wrapped[:-1], b"a"),
        (kek, wrapped + b"x", b"a"),
        (kek, wrapped[:27], b"a"),
        (kek, b"", b"a"),
        *((kek, wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], b"a") for at in range(len(wrapped))),
    ]:
        with pytest.raises(SealInvalid) as refused:
            key.unwrap(damaged, associated)
        assert (str(refused.value), refused.value.__cause__) == (str(SealInvalid()), None)


def test_a_key_wraps_no_more_often_than_its_nonces_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keks.MOST_WRAPS == 2**32
    monkeypatch.setattr(keks, "MOST_WRAPS", 2)
    kek = counting()
    last = [kek.wrap(b"k", b"") for _ in range(2)][-1]
    with pytest.raises(KekWornOut, match="keys rotate"):
        kek.wrap(b"k", b"")
    assert kek.unwrap(last, b"") == b"k"


def test_a_key_shows_only_its_id_and_is_never_copied() -> None:
    kek = Kek.generate()
    assert repr(kek) == str(kek) == f"Kek({kek.key_id})"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            duplicate(kek)


def test_the_raw_bytes_leave_only_as_a_secret_that_can_be_wiped() -> None:
    kek = counting()
    with kek.raw() as raw:
        assert raw.matches(SEED)
    assert kek.to_text() == counting().to_text()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sync.kek"


def test_a_saved_key_is_loaded_and_only_its_owner_may_read_it(path: Path) -> None:
    kek = Kek.generate()
    before = os.umask(0)
    try:
        save_new_kek(path, kek)
    finally:
        os.umask(before)
    assert load_kek(path).matches(kek)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.stat().st_nlink == 1


def test_a_key_is_never_written_over(path: Path) -> None:
    first = Kek.generate()
    save_new_kek(path, first)
    with pytest.raises(KeyFileRefused, match="never written over"):
        save_new_kek(path, Kek.generate())
    assert load_kek(path).matches(first)
    assert list(path.parent.iterdir()) == [path]


def test_not_even_something_that_is_no_key_or_leads_nowhere_is_written_over(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")
    with pytest.raises(KeyFileRefused, match="never written over"):
        save_new_kek(path, Kek.generate())
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(KeyFileRefused, match="No space"):
        save_new_kek(path, Kek.generate())
    assert list(path.parent.iterdir()) == []


def test_a_directory_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(KeyFileRefused, match=r"Can't write .*elsewhere.*No such file"):
        save_new_kek(path.parent / "elsewhere" / "kek", Kek.generate())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o700])
def test_a_file_that_others_may_read_is_refused_with_the_mend(path: Path, mode: int) -> None:
    save_new_kek(path, Kek.generate())
    path.chmod(mode)
    with pytest.raises(KeyFileRefused, match="chmod 600"):
        load_kek(path)


def test_a_file_without_a_line_break_is_fine_and_one_with_two_is_not(path: Path) -> None:
    text = counting().to_text().encode()
    write_key_file(path, text)
    assert load_kek(path).matches(counting())
    for content in (text + b"\n\n", b"\n" + text, text + b"\n" + text, text + b" "):
        write_key_file(path, content)
        with pytest.raises(KeyFileRefused):
            load_kek(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"S3CRET", "schlüssel S3CRET".encode(), b"S3CRET\x00", b"\xff" * 32, SEED],
    ids=["empty", "a line break", "a word", "not ASCII", "a zero byte", "bytes", "a raw key"],
)
def test_what_is_no_key_is_refused_by_the_files_name_without_being_quoted(path: Path, content: bytes) -> None:
    write_key_file(path, content)
    with pytest.raises(KeyFileRefused) as refused:
        load_kek(path)
    assert str(path) in str(refused.value)
    assert "S3CRET" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_recovery_key_in_the_place_of_the_installations_is_called_by_its_name(path: Path) -> None:
    write_key_file(path, write_key_text(KeyKind.RECOVERY_KEY, bytes(10), SEED).encode())
    with pytest.raises(KeyFileRefused, match="This is a recovery key, but an installation key is needed"):
        load_kek(path)
