"""Values as files: in a directory that only this user may enter, on a file system that is in memory and nowhere else.

    <memory file system>/keyfob-<uid>/        0700, of one user
        <hash of the instance's id>/          0700, of one gateway instance
            <random>/                         0700, of one running server
                <field>                       0400, the value byte for byte

A server learns a path from the variable that its field names. Its directory goes when the server is gone. What a
killed gateway left is removed by its next start, which is the only process of that instance (`client.identity.alone`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
"""Types of file systems in proc_pid_mountinfo(5) that keep nothing on a disk; a tmpfs may be swapped out."""
MOUNTS: Final = Path("/proc/self/mountinfo")
USUAL_PLACES: Final = (Path("/dev/shm"),)  # noqa: S108 - only a place to look at: what is made there is private


@dataclass(frozen=True, slots=True)
class ValueFiles:
    """Where one gateway instance puts values; `root` None where there is no memory file system."""

    root: Path | None

    @classmethod
    def of(cls, instance_id: str, places: Iterable[Path]) -> ValueFiles:
        """In the first of `places` that is in memory and can be written to. Makes nothing."""
        found = (place for place in places if is_in_memory(place) and os.access(place, os.W_OK | os.X_OK))
        return cls(next((place / users_own() / instances_own(instance_id) for place in found), None))

    def clear(self) -> None:
        """Remove what an earlier process of this instance left; call it before anything is put."""
        if self.root is not None and _is_private(self.root.parent) and _is_private(self.root):
            shutil.rmtree(self.root, ignore_errors=True)

    def put(self, values: Mapping[str, SecretBytes]) -> Path:
        """Write each value into a file by its field's name, in a new directory that the caller removes.

        Raises `Unavailable` where nothing is in memory, or the place belongs to somebody else.
        """
        if self.root is None:
            raise Unavailable("This gateway has no memory file system (tmpfs) for values that are passed as files.")
        make_private(self.root.parent)
        make_private(self.root)
        try:
            directory = Path(tempfile.mkdtemp(dir=self.root))
        except OSError as error:
            raise _unwritable(error) from None
        try:
            for name, value in values.items():
                _write(directory / name, value)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise _unwritable(error) from None
        return directory


def users_own() -> str:
    """The name of a directory that all gateways of this user share."""
    return f"keyfob-{os.geteuid()}"


def instances_own(instance_id: str) -> str:
    """The name of a directory, in there, of one gateway instance."""
    return hashlib.sha256(instance_id.encode()).hexdigest()[:16]


def make_private(directory: Path) -> None:
    """Make a directory that only this user may enter; `Unavailable` where what is there is something else."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"A directory of this gateway can't be made ({error.strerror}).") from None
    # In a place that everybody may write to, somebody may have been there first.
    if not _is_private(directory):
        raise Unavailable("A directory of this gateway is not its own: another user, or anybody, may enter it.")


def usual_places() -> tuple[Path, ...]:
    """Where memory file systems usually are: the user's run-time directory (XDG), then the one for shared memory."""
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    return (*((Path(own),) if own.startswith("/") else ()), *USUAL_PLACES)


def is_in_memory(place: Path, mounts: Path = MOUNTS) -> bool:
    """Whether `place` is a directory on a file system that is only in memory."""
    try:
        lines = mounts.read_text().splitlines()
        place = place.resolve(strict=True)
    except OSError:
        return False
    # The last one wins: what is mounted later covers what was there before.
    covering = [mount for line in lines if place.is_relative_to((mount := _mount(line))[0])]
    longest = max((len(point.parts) for point, _ in covering), default=0)
    kinds = [kind for point, kind in covering if len(point.parts) == longest]
    return place.is_dir() and bool(kinds) and kinds[-1] in IN_MEMORY


def _mount(line: str) -> tuple[Path, str]:
    """Mount point and type of one line of mountinfo; optional fields end with a lone hyphen."""
    front, _, back = line.partition(" - ")
    # Blanks and the like are written as octal escapes.
    point = front.split(" ")[4].encode().decode("unicode_escape")
    return Path(point), back.split(" ")[0]


def _is_private(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700  # noqa: PLR2004


def _write(path: Path, value: SecretBytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
    try:
        with value.reveal() as view:
            written = 0
            # One call may take less than all of it.
            while written < len(view):
                written += os.write(descriptor, view[written:])
    finally:
        os.close(descriptor)


def _unwritable(error: OSError) -> Unavailable:
    return Unavailable(f"A value can't be written to its file ({error.strerror}).")
