"""A sandbox for each stdio server: PID, IPC, user and mount namespaces, no capabilities, an end that leaves nobody.

Without one, whoever runs under the same UID reads another server's `/proc/PID/environ` and files. In one, a server sees
its own processes only, and a file system (`views`) that it can't write to but for its own places. When the first
process of a PID namespace is gone, the kernel has ended all others (pid_namespaces(7)), also those that left the group.

Two tools make one, asked by their command line: bubblewrap, and util-linux (unshare(1), mount(8), setpriv(1)). A tool
is tried once, at the start, with the very view that servers get. Neither is told a value: those are in the environment.

The network is shared, since servers need it: loopback ports and abstract UNIX sockets (unix(7)) stay within reach.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import structlog

from services.gateway.views import (
    Empty,
    Keep,
    Mount,
    Nothing,
    Own,
    Step,
    View,
    make_rooms,
    options_at,
    read_mounts,
    steps_of,
    writable_mounts,
)
from shared.config import Misconfigured
from shared.errors import Unavailable

PROBE_S: Final = 10.0
TOOLS: Final = f"{os.defpath}:/usr/sbin:/sbin"
"""Where the tools are looked for; nothing of the gateway's own PATH counts."""
NAMESPACES: Final = ("pid", "mnt", "ipc", "user")
NO_CAPABILITIES: Final = {"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "0" * 16}
PROBE: Final = f"cd /proc/self/ns && readlink {' '.join(NAMESPACES)} && grep ^Cap ../status"

ADDED: Final = ("PWD", "OLDPWD", "SHLVL", "_")
"""Variables that the tools and shells add to what a server is given."""
SHELLS_OWN: Final = frozenset({"PPID", "UID", "EUID", "RANDOM", "SECONDS", "LINENO", "OPTIND"})
"""Variables whose value a shell does not take from its environment (dash(1), bash(1))."""
SHELL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
"""Other variables don't get through a shell (POSIX.1-2024, XBD 8.1)."""
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
PROC_DANGERS: Final = ("sys", "sysrq-trigger", "irq", "bus")
"""Where root, even one without capabilities, could write to the kernel; bubblewrap protects the same ones."""

_log = structlog.get_logger(__name__)


class Choice(StrEnum):
    """Which sandbox stdio servers run in."""

    AUTO = "auto"
    BUBBLEWRAP = "bubblewrap"
    UNSHARE = "unshare"
    OFF = "off"


class Sandbox(Protocol):
    """Makes the command line that runs a program in a sandbox of its own."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    @property
    def view(self) -> View:
        """What servers see."""
        ...

    def around(self, own: Own, command: Iterable[str], names: Iterable[str] = ()) -> list[str]:
        """`command`, in a new sandbox, as a child of the calling process, with the working directory in `own`.

        `names` are the variables of its environment. Raises `Unavailable` where one would not arrive as it is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """bwrap(1), 0.4 or newer. `tools` are absolute paths by name."""

    tools: Mapping[str, str]
    view: View
    name: str = Choice.BUBBLEWRAP

    def around(self, own: Own, command: Iterable[str], names: Iterable[str] = ()) -> list[str]:
        """See `Sandbox`. What it binds, it takes from the file system as it was outside."""
        _check(name for name in names if name in ADDED)
        steps = steps_of(self.view, own)
        mounts = [word for step in steps for word in _as_option(step)]
        closed = [word for step in steps if isinstance(step, Empty) for word in ("--remount-ro", str(step.path))]
        return [
            *(self.tools["bwrap"], "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"),
            *("--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
            *("--ro-bind", "/proc/sys", "/proc/sys", *mounts, *closed, "--chdir", str(own.work), "--"),
            *_without_shells_own(self.tools["env"]),
            *command,
        ]


def _as_option(step: Step) -> tuple[str, ...]:
    match step:
        case Empty(path):
            return ("--tmpfs", str(path))
        case Nothing(path):
            return ("--ro-bind", "/dev/null", str(path))
        case Keep(source, path, writable):
            return ("--bind" if writable else "--ro-bind", str(source), str(path))


@dataclass(frozen=True, slots=True)
class Unshare:
    """util-linux, 2.34 or newer. `tools` are absolute paths by name."""

    tools: Mapping[str, str]
    view: View
    name: str = Choice.UNSHARE

    def around(self, own: Own, command: Iterable[str], names: Iterable[str] = ()) -> list[str]:
        """See `Sandbox`."""
        tools, names = self.tools, tuple(names)
        _check(name for name in names if name in {*ADDED, *SHELLS_OWN} or not SHELL_NAME.fullmatch(name))
        # A new user namespace takes the death signal away, so it is asked for again after that step; and if the
        # gateway died in between, nobody would send it.
        alive = [tools["sh"], "-c", f'test "$PPID" = {os.getpid()} && exec "$@"', "sh"]
        user = [tools["unshare"], "--map-current-user", "--keep-caps", "--", tools["setpriv"], "--pdeathsig", "KILL"]
        spaces = ["--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--propagation", "private"]
        return [
            *(*user, "--", *alive, tools["unshare"], *spaces, "--kill-child=KILL", "--"),
            *(tools["sh"], "-c", self._script(own, names), "sh", *command),
        ]

    def _script(self, own: Own, names: tuple[str, ...]) -> str:
        """Commands without a variable of the shell's: it has the server's environment."""
        tools, mounts = self.tools, read_mounts()
        mount = f"{tools['mount']} -c -n"
        steps = steps_of(self.view, own)
        places = [line for step in steps for line in self._place(step, mounts)]
        read_only = [
            f"{mount} -o {_words('remount', 'bind', 'ro', *one.flags)} {_quoted(one.point)}"
            for one in writable_mounts(mounts, self.view)
        ]
        closed = [
            f"{mount} -o remount,bind,ro,nosuid,nodev {_quoted(step.path)}" for step in steps if isinstance(step, Empty)
        ]
        clean = shlex.join(_without_shells_own(tools["env"]))
        # The shell stays as first process, because that one ignores SIGTERM and owes the others their last wait(2).
        first = f'cd {_quoted(own.work)} && {clean} "$@" || exit "$?"'
        drop = "--inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs"
        return "\n".join(
            [
                "set -eu",
                # Only who becomes the server has its values: not mount(8), whose arguments don't say for whom it is.
                "(",
                *([f"unset {' '.join(names)}"] if names else []),
                # All of the old tree by one handle, which what is mounted later does not cover.
                f"{mount} --rbind / {_quoted(own.before)}",
                f"exec 3<{_quoted(own.before)}",
                *self._devices(),
                *places,
                *(
                    line
                    for name in PROC_DANGERS
                    if Path("/proc", name).exists()
                    for line in self._lock(f"/proc/{name}")
                ),
                *(*read_only, *closed),
                f"{tools['umount']} -c -n -i -l /proc/self/fd/3",
                ")",
                f'exec {tools["setpriv"]} {drop} -- {tools["sh"]} -c {shlex.quote(first)} sh "$@"',
            ]
        )

    def _place(self, step: Step, mounts: tuple[Mount, ...]) -> list[str]:
        mount, mkdir = f"{self.tools['mount']} -c -n", f"{self.tools['mkdir']} -p"
        where = _quoted(step.path)
        match step:
            case Empty():
                return [f"{mount} -t tmpfs -o nosuid,nodev,mode=0755 keyfob {where}"]
            case Nothing():
                return [f"{mount} --bind /proc/self/fd/3/dev/null {where}"]
            case Keep(source, path, writable):
                options = _words("bind", "rw" if writable else "ro", *options_at(source, mounts))
                made = f"{mkdir} {where}"
                if not source.is_dir():
                    made = f"{mkdir} {_quoted(path.parent)} && : >>{where}"
                return [made, f"{mount} -o {options} {_quoted(Path(f'/proc/self/fd/3{source}'))} {where}"]

    def _devices(self) -> list[str]:
        """Root owns the disks' device nodes, and needs no capability to read what it owns."""
        mount, mkdir = f"{self.tools['mount']} -c -n", self.tools["mkdir"]
        bound = [f": >/dev/{one} && {mount} --bind /proc/self/fd/3/dev/{one} /dev/{one}" for one in DEVICES]
        links = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
        return [
            f"{mount} -t tmpfs -o nosuid,noexec,mode=0755 keyfob /dev",
            *bound,
            f"{mkdir} /dev/shm /dev/pts",
            f"{mount} -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts",
            f"{self.tools['ln']} -s pts/ptmx /dev/ptmx",
            *(f"{self.tools['ln']} -s /proc/self/fd{target} /dev/{name}" for name, target in links.items()),
        ]

    def _lock(self, path: str) -> list[str]:
        mount = f"{self.tools['mount']} -c -n"
        return [f"{mount} -o bind,ro,nosuid,nodev,noexec,relatime {path} {path}"]


def detect(choice: Choice, view: View, scratch: Path | None = None) -> Sandbox | None:
    """The sandbox that works on this host; None where none does, or none is wanted. `scratch`: for trying it.

    Raises `Misconfigured` when the one that is named does not work.
    """
    wanted = tuple(_MAKERS) if choice is Choice.AUTO else (choice,)
    for one in wanted if choice is not Choice.OFF else ():
        made = _MAKERS[one](view)
        if made is None:
            _log.info("sandbox not installed", tool=one)
        elif not works(made, scratch):
            _log.info("sandbox not allowed by this host", tool=one)
        else:
            return made
    if choice not in {Choice.AUTO, Choice.OFF}:
        raise Misconfigured(f"KEYFOB_GATEWAY_SANDBOX: {choice} is not installed, or this host does not let it work.")
    return None


def works(sandbox: Sandbox, scratch: Path | None = None) -> bool:
    """Whether a program really runs in namespaces of its own, without capabilities: hosts often forbid it."""
    ours = {str(Path("/proc/self/ns", kind).readlink()) for kind in NAMESPACES}
    with tempfile.TemporaryDirectory(prefix="keyfob-probe-", dir=scratch) as directory:
        own = make_rooms(Path(directory).resolve())
        command = sandbox.around(own, [shutil.which("sh", path=TOOLS) or "sh", "-c", PROBE])
        try:
            probe = subprocess.run(  # noqa: S603 - our own command line, without anybody's input
                command,
                env={"PATH": TOOLS},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PROBE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    words = probe.stdout.decode(errors="replace").split()
    theirs, capabilities = set(words[: len(NAMESPACES)]), set(words[len(NAMESPACES) :])
    return probe.returncode == 0 and capabilities == NO_CAPABILITIES and not theirs & ours


def _check(lost: Iterable[str]) -> None:
    for name in lost:
        raise Unavailable(f"The variable {name} would not reach a server in this gateway's sandbox as it is.")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _words(*options: str) -> str:
    return ",".join(options)


def _without_shells_own(env: str) -> list[str]:
    return [env, *(word for name in ADDED for word in ("-u", name))]


def _tools(*names: str) -> Mapping[str, str] | None:
    found = {name: path for name in names if (path := shutil.which(name, path=TOOLS)) is not None}
    return MappingProxyType(found) if len(found) == len(names) else None


def _bubblewrap(view: View) -> Sandbox | None:
    tools = _tools("bwrap", "env")
    return None if tools is None else Bubblewrap(tools, view)


def _unshare(view: View) -> Sandbox | None:
    tools = _tools("unshare", "setpriv", "mount", "umount", "mkdir", "ln", "sh", "env")
    return None if tools is None else Unshare(tools, view)


_MAKERS: Final[Mapping[Choice, Callable[[View], Sandbox | None]]] = {
    Choice.BUBBLEWRAP: _bubblewrap,
    Choice.UNSHARE: _unshare,
}
