"""Values as files: only in memory, only for this user, and gone afterwards."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from services.gateway import files
from services.gateway.files import USUAL_PLACES, ValueFiles, is_in_memory, usual_places
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:5 / {there} rw,nosuid - {kind} none rw,size=1k
24 22 254:1 / {there}/sub\\040dir rw - ext4 /dev/vdb rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    return tmp_path / "mountinfo"


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that counts as one in memory, wherever the tests run."""
    monkeypatch.setattr(files, "is_in_memory", lambda place: place == tmp_path)
    return tmp_path


def put(made: ValueFiles, **values: bytes) -> Path:
    return made.put({name: SecretBytes(value) for name, value in values.items()})


@pytest.mark.parametrize(
    ("kind", "memory"), [("tmpfs", True), ("ramfs", True), ("ext4", False), ("devtmpfs", False), ("overlay", False)]
)
def test_what_is_in_memory_is_told_by_the_type_of_its_mount(
    tmp_path: Path, mounts: Path, kind: str, *, memory: bool
) -> None:
    there = tmp_path / "there"
    (there / "sub dir").mkdir(parents=True)
    (there / "plain").mkdir()
    mounts.write_text(MOUNTS.format(there=there, kind=kind))
    assert is_in_memory(there, mounts) == is_in_memory(there / "plain", mounts) == memory
    assert not is_in_memory(there / "sub dir", mounts), "a disk is mounted inside"
    assert not is_in_memory(tmp_path, mounts)


def test_what_is_mounted_over_it_counts(tmp_path: Path, mounts: Path) -> None:
    line = "23 22 0:5 / {} rw - {} none rw\n"
    mounts.write_text(line.format(tmp_path, "tmpfs") + line.format(tmp_path, "ext4"))
    assert not is_in_memory(tmp_path, mounts)


@pytest.mark.parametrize("missing", ["place", "mounts"])
def test_what_can_not_be_looked_at_is_not_in_memory(tmp_path: Path, mounts: Path, missing: str) -> None:
    if missing == "place":
        mounts.write_text("23 22 0:5 / / rw - tmpfs none rw\n")
    assert not is_in_memory(tmp_path / "nothing" if missing == "place" else tmp_path, mounts)


def test_a_link_out_of_memory_is_followed_before_it_is_judged(tmp_path: Path, mounts: Path) -> None:
    inside, outside = tmp_path / "memory", tmp_path / "disk"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    mounts.write_text(f"1 0 0:1 / / rw - ext4 none rw\n2 1 0:2 / {inside} rw - tmpfs none rw\n")
    assert is_in_memory(inside, mounts)
    assert not is_in_memory(inside / "link", mounts)


def test_a_value_stands_in_a_file_that_only_its_owner_may_read(memory: Path) -> None:
    directory = put(ValueFiles.of("instance/1", [memory]), KEY=b"a\0b\n", OTHER=b"")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {"KEY": b"a\0b\n", "OTHER": b""}
    assert stat.S_IMODE((directory / "KEY").stat().st_mode) == 0o400
    for private in (directory, directory.parent):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_each_server_has_a_directory_of_its_own(memory: Path) -> None:
    made = ValueFiles.of("instance/1", [memory])
    assert put(made, KEY=b"1") != put(made, KEY=b"2")


def test_without_memory_a_value_is_refused_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "is_in_memory", lambda _: False)
    made = ValueFiles.of("instance/1", [tmp_path])
    with pytest.raises(Unavailable, match="no memory file system"):
        put(made, KEY=b"1")
    made.clear()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_other_instances_stay(memory: Path) -> None:
    mine, other = ValueFiles.of("instance/1", [memory]), ValueFiles.of("instance/2", [memory])
    put(mine, KEY=b"1")
    kept = put(other, KEY=b"2")
    ValueFiles.of("instance/1", [memory]).clear()
    assert mine.root is not None
    assert not mine.root.exists()
    assert (kept / "KEY").read_bytes() == b"2"
    assert (put(mine, KEY=b"3") / "KEY").read_bytes() == b"3"


@pytest.mark.parametrize("trap", ["link", "file", "open to others"])
def test_a_place_that_somebody_else_prepared_is_neither_used_nor_emptied(memory: Path, trap: str) -> None:
    made = ValueFiles.of("instance/1", [memory])
    assert made.root is not None
    made.root.parent.mkdir(mode=0o700)
    elsewhere = memory / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious").touch()
    match trap:
        case "link":
            made.root.symlink_to(elsewhere)
        case "file":
            made.root.touch()
        case _:
            made.root.mkdir()
            made.root.chmod(0o770)
            (made.root / "precious").touch()
    with pytest.raises(Unavailable):
        put(made, KEY=b"value")
    made.clear()
    assert (elsewhere / "precious").exists()
    assert not list(memory.rglob("KEY"))
    assert trap != "open to others" or (made.root / "precious").exists()


def test_a_directory_of_another_user_is_not_used(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ValueFiles.of("instance/1", [memory])
    assert made.root is not None
    made.root.mkdir(mode=0o700, parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: made.root.stat().st_uid + 1)
    with pytest.raises(Unavailable, match="not its own"):
        put(made, KEY=b"value")


def test_a_value_that_can_not_be_written_leaves_nothing_and_is_not_quoted(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: SecretBytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device", "/some/path")

    monkeypatch.setattr(files, "_write", full)
    made = ValueFiles.of("instance/1", [memory])
    with pytest.raises(Unavailable) as refused:
        put(made, KEY=b"value")
    assert refused.value.detail == "A value can't be written to its file (No space left on device)."
    assert made.root is not None
    assert list(made.root.iterdir()) == []


@pytest.mark.parametrize(("named", "first"), [("/run/user/7", Path("/run/user/7")), ("relative", None), ("", None)])
def test_the_users_own_place_comes_first(monkeypatch: pytest.MonkeyPatch, named: str, first: Path | None) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", named)
    assert usual_places() == (((first,) if first else ()) + USUAL_PLACES)
