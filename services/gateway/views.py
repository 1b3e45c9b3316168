"""What of this machine's files a server in a sandbox sees: everything to read, except what is hidden.

    /                     as it is, read-only
    /tmp, /var/tmp        the server's own, gone with it
    /dev                  a few devices, shared memory of its own
    /run                  empty: sockets of other programs, whose peers trust a UID
    hidden                empty: where gateways keep keys, values and working directories, and what is named
    within those          what is shown by name, read-only; the server's own working directory and value files

Rules of paths that contain each other: the longest one counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
RESOLVER: Final = Path("/etc/resolv.conf")
SHARED: Final = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - each server gets one of its own
SOCKETS: Final = Path("/run")
DEVICES: Final = Path("/dev")
PROCESSES: Final = Path("/proc")
FLAGS: Final = frozenset({"nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"})
"""Options of one mount (proc_pid_mountinfo(5), field 6) that nobody may take away in a new user namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """`hidden` are directories and files, `shown` what is inside those and may be read all the same."""

    hidden: tuple[Path, ...] = ()
    shown: tuple[Path, ...] = ()

    def shows(self, path: Path) -> bool:
        """Whether a server finds `path`, by its real name."""
        steps = _common_steps(self)
        return all(_visible(one, steps) for one in (path.absolute(), path.resolve()))


@dataclass(frozen=True, slots=True)
class Own:
    """The places of one server, below one directory; `files` are its values, somewhere else."""

    directory: Path
    files: Path | None = None

    @property
    def work(self) -> Path:
        """Its working directory."""
        return self.directory / "work"

    @property
    def temporary(self) -> Path:
        """What it finds as `/tmp` and `/var/tmp`."""
        return self.directory / "tmp"

    @property
    def before(self) -> Path:
        """Where the old tree is mounted while a sandbox is made."""
        return self.directory / "before"


@dataclass(frozen=True, slots=True)
class Empty:
    """A directory with nothing in it."""

    path: Path


@dataclass(frozen=True, slots=True)
class Nothing:
    """A file with nothing in it."""

    path: Path


@dataclass(frozen=True, slots=True)
class Keep:
    """`source`, as it is outside, is found at `path`."""

    source: Path
    path: Path
    writable: bool = False


Step = Empty | Nothing | Keep


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of proc_pid_mountinfo(5)."""

    point: Path
    writable: bool
    flags: tuple[str, ...]


def make_rooms(directory: Path, files: Path | None = None) -> Own:
    """The places of a new server, in an empty directory that the caller removes."""
    own = Own(directory, files)
    for room in (own.work, own.temporary, own.before):
        room.mkdir(mode=0o700)
    return own


def steps_of(view: View, own: Own) -> tuple[Step, ...]:
    """How the view comes about, outermost first."""
    steps = [*_common_steps(view)]
    temporary = [Keep(own.temporary, place, writable=True) for place in _real(SHARED)]
    steps = [next((one for one in temporary if one.path == step.path), step) for step in steps]
    given = () if own.files is None else (Keep(own.files, own.files),)
    return tuple(sorted([*steps, *given, Keep(own.work, own.work, writable=True)], key=_depth))


def _common_steps(view: View) -> tuple[Step, ...]:
    """Those of every server; shared places are still empty."""
    hidden = _real((*view.hidden, *SHARED, SOCKETS))
    shown = _real((*view.shown, *_name_service())) - hidden
    steps: list[Step] = []
    for path in sorted(hidden | shown, key=lambda one: (len(one.parts), one)):
        match path in hidden, _visible(path, steps):
            case True, True:
                steps.append(Empty(path) if path.is_dir() else Nothing(path))
            case False, False:
                steps.append(Keep(path, path))
    return tuple(steps)


def _visible(path: Path, steps: Iterable[Step]) -> bool:
    covering = [step for step in steps if path.is_relative_to(step.path)]
    nearest = max(covering, key=_depth, default=None)
    # Devices are always made anew.
    return not path.is_relative_to(DEVICES) if nearest is None else isinstance(nearest, Keep)


def _name_service() -> tuple[Path, ...]:
    """What /etc/resolv.conf leads to: its directory, where the file is replaced, unless that has everything in it."""
    real = RESOLVER.resolve()
    return (real if real.parent in _real((SOCKETS, *SHARED)) else real.parent,)


def _real(paths: Iterable[Path]) -> set[Path]:
    return {path.resolve() for path in paths if _reachable(path)}


def _depth(step: Step) -> tuple[int, Path]:
    return len(step.path.parts), step.path


def read_mounts(table: Path = MOUNTS) -> tuple[Mount, ...]:
    """What is mounted, in its order."""
    return tuple(_mount(line) for line in table.read_text().splitlines())


def _mount(line: str) -> Mount:
    fields = line.split(" ")
    options = fields[5].split(",")
    # Blanks and the like are written as octal escapes.
    point = fields[4].encode().decode("unicode_escape").encode("latin-1").decode()
    return Mount(Path(point), "rw" in options, tuple(one for one in options if one in FLAGS))


def options_at(path: Path, mounts: Iterable[Mount]) -> tuple[str, ...]:
    """The flags of the mount that `path` is on. The last one wins: it covers what was there before."""
    covering = [mount for mount in mounts if path.is_relative_to(mount.point)]
    return max(reversed(covering), key=lambda mount: len(mount.point.parts)).flags if covering else ()


def writable_mounts(mounts: Iterable[Mount], view: View) -> tuple[Mount, ...]:
    """Those that a server would still find, and could write to."""
    steps = _common_steps(view)
    found = {mount.point: mount for mount in mounts}
    return tuple(
        mount
        for point, mount in found.items()
        if mount.writable
        and not point.is_relative_to(PROCESSES)
        and _reachable(point)
        # What is shown inside a hidden place is a mount of its own, and what was mounted in there is not.
        and not point.is_relative_to(DEVICES)
        and not any(point.is_relative_to(step.path) for step in steps)
    )


def _reachable(path: Path) -> bool:
    """Whether it is there for us; where not, it isn't for a server of the same user."""
    try:
        return path.exists()
    except OSError:
        return False
