"""A directory of keys: what is made there, and what is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.crypto.key_files import KeyFileRefused
from shared.custody import Kek, RecoveryKey, load_kek, read_recovery_ids, recover
from shared.custody.directory import key_files, key_path, read_recovery_blob, recovery_path, save_new_key
from shared.custody.providers.file import FileProvider
from shared.custody.providers.port import KeyProviderRefused

KEY = RecoveryKey.generate()


async def test_a_key_lies_under_its_id_for_its_owner_only(tmp_path: Path) -> None:
    kek = Kek.generate()
    path, blob = await save_new_key(tmp_path, kek, FileProvider(), recovery=None)
    assert (path, blob) == (key_path(tmp_path, kek.key_id), None)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_kek(path).matches(kek)
    assert key_files(tmp_path) == [path]
    assert read_recovery_blob(tmp_path, kek.key_id) is None


async def test_its_recovery_blob_lies_beside_it_and_restores_it(tmp_path: Path) -> None:
    kek = Kek.generate()
    _, path = await save_new_key(tmp_path, kek, FileProvider(), recovery=KEY.public)
    assert path == recovery_path(tmp_path, kek.key_id)
    blob = read_recovery_blob(tmp_path, kek.key_id)
    assert blob is not None
    assert read_recovery_ids(blob).recovery == KEY.public.key_id
    assert recover(blob, KEY).matches(kek)


async def test_the_blob_is_there_before_the_key(tmp_path: Path) -> None:
    class Broken(FileProvider):
        async def keep(self, kek: Kek) -> str:
            assert recovery_path(tmp_path, kek.key_id).exists()
            raise KeyProviderRefused("no")

    with pytest.raises(KeyProviderRefused):
        await save_new_key(tmp_path, Kek.generate(), Broken(), recovery=KEY.public)
    assert key_files(tmp_path) == []


async def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    kek = Kek.generate()
    path, _ = await save_new_key(tmp_path, kek, FileProvider(), recovery=None)
    before = path.read_bytes()
    with pytest.raises(KeyFileRefused, match="never written over"):
        await save_new_key(tmp_path, kek, FileProvider(), recovery=None)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "AAAA\n", "not base64!\n", "\n"])
def test_a_file_that_holds_no_blob_is_refused(tmp_path: Path, content: str) -> None:
    key_id = Kek.generate().key_id
    recovery_path(tmp_path, key_id).write_text(content)
    recovery_path(tmp_path, key_id).chmod(0o600)
    with pytest.raises(KeyFileRefused):
        read_recovery_blob(tmp_path, key_id)


async def test_another_keys_blob_is_refused(tmp_path: Path) -> None:
    one, other = Kek.generate(), Kek.generate()
    for kek in (one, other):
        await save_new_key(tmp_path, kek, FileProvider(), recovery=KEY.public)
    recovery_path(tmp_path, one.key_id).write_bytes(recovery_path(tmp_path, other.key_id).read_bytes())
    with pytest.raises(KeyFileRefused, match=one.key_id):
        read_recovery_blob(tmp_path, one.key_id)


def test_drafts_and_other_files_are_no_keys(tmp_path: Path) -> None:
    for name in (".hidden.kek", "notes.txt", "x.recovery", "b.kek", "a.kek"):
        (tmp_path / name).touch()
    assert [path.name for path in key_files(tmp_path)] == ["a.kek", "b.kek"]


def test_no_directory_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(KeyFileRefused, match="Can't look for installation keys in"):
        key_files(tmp_path / "nowhere")
