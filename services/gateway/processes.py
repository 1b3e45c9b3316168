"""Child processes that hold a value: an environment made from nothing, a directory of their own, a certain end.

A child is the leader of its own process group, and the group is what ends: SIGTERM and a short grace where nothing
was revoked, SIGKILL otherwise. It also dies with this process, however that dies (prctl(2), `PR_SET_PDEATHSIG`). In a
sandbox (`sandboxes`) whatever left the group ends with it too.
What it writes to stderr is read, searched for its values and counted, never kept: it may quote anything.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import structlog

from services.gateway.redaction import Redactor
from services.gateway.sandboxes import Sandbox
from services.gateway.views import make_rooms
from shared.errors import Unavailable

REAP_WITHIN_S: Final = 2.0
"""A process that got SIGKILL is gone by then, or stuck in the kernel, where it runs nothing."""
POLL_S: Final = 0.005
CHUNK: Final = 64 * 1024
_PR_SET_PDEATHSIG: Final = 1

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start. `environment` is the whole environment of the child."""

    command: str
    args: tuple[str, ...]
    environment: Mapping[str, str]
    sandbox: Sandbox | None = None
    files: Path | None = None
    """A directory with values; whoever put them there removes it."""
    command_path: str = os.defpath
    scratch_dir: Path | None = None
    line_limit: int = 16 * 1024 * 1024

    def __repr__(self) -> str:
        return f"Launch({self.command})"


@dataclass(slots=True)
class Child:
    """A running child. `end` it, always."""

    process: asyncio.subprocess.Process
    directory: Path
    _stderr: asyncio.Task[int] = field(repr=False)
    _sandboxed: bool = False
    _ended: bool = False

    @property
    def pid(self) -> int:
        """Process and group id."""
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL to the whole group, now; `end` still has to be awaited."""
        # A number that was reaped may belong to somebody else by now.
        if not self._ended:
            _signal_group(self.pid, signal.SIGKILL)

    async def end(self, *, grace_s: float) -> None:
        """Stop the group and wait until it is gone; clean up. Grace 0 means SIGKILL at once."""
        if self._ended:
            return
        if grace_s > 0 and self.process.returncode is None:
            await self._ask_to_stop()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._exited()
        # Also where the leader is gone: what it left behind has the value too.
        _signal_group(self.pid, signal.SIGKILL)
        await self._gone()
        self._ended = True
        await self._clean_up()

    async def _ask_to_stop(self) -> None:
        """SIGTERM: to the group, or in a sandbox to all but the tool, which would take everything along at once."""
        if self._sandboxed:
            await asyncio.to_thread(_terminate_below, self.pid)
        else:
            _signal_group(self.pid, signal.SIGTERM)

    async def _gone(self) -> None:
        """Wait for the leader, which we reap, and for the rest, in a sandbox its first process and so all of it."""
        try:
            async with asyncio.timeout(REAP_WITHIN_S):
                await self._exited()
        except TimeoutError:
            _log.error("process does not go", pid=self.pid)
        with suppress(TimeoutError):
            async with asyncio.timeout(REAP_WITHIN_S):
                # The kernel has no event for a group; and a zombie's new parent may never reap it.
                while _group_alive(self.pid) and await asyncio.to_thread(_group_runs, self.pid):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)

    async def _exited(self) -> None:
        """Not `process.wait()`: that also waits for pipes, which a descendant may hold open."""
        while self.process.returncode is None:  # noqa: ASYNC110 - see above
            await asyncio.sleep(POLL_S)

    async def _clean_up(self) -> None:
        self._stderr.cancel()
        with suppress(asyncio.CancelledError):
            await self._stderr
        if self.process.stdin is not None:
            self.process.stdin.close()
        _close_transport(self.process)
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)


async def start(launch: Launch, stderr: Redactor | None = None) -> Child:
    """Start a child, whose stderr goes through `stderr`. Raises `Unavailable` when its program can't be run."""
    program = find_program(launch.command, launch.command_path)
    directory, command = await asyncio.to_thread(_prepare, launch, program)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(launch.environment),
            cwd=directory,
            # A group of its own: everything that it starts can be signalled with it.
            start_new_session=True,
            # Nothing public offers PR_SET_PDEATHSIG; a gateway that is killed can't clean up after itself.
            preexec_fn=_die_with_parent(),
            limit=launch.line_limit,
        )
    except (OSError, ValueError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.E2BIG:
            raise Unavailable(
                "A value is longer than an environment variable may be (128 KiB): let the server take it as a file."
            ) from None
        # The text of the error may hold an argument: its type says enough.
        raise Unavailable(f"The MCP server's program can't be started ({type(error).__name__}).") from None
    reading = asyncio.create_task(_count(process, stderr), name=f"stderr of {process.pid}")
    return Child(process, directory, reading, launch.sandbox is not None)


def _prepare(launch: Launch, program: str) -> tuple[Path, list[str]]:
    """A new directory of the child's, and its command line."""
    command = [program, *launch.args]
    if launch.sandbox is not None and not launch.sandbox.view.shows(Path(program)):
        raise Unavailable(
            "The MCP server's program is in a place that its sandbox hides (KEYFOB_GATEWAY_SANDBOX_SHOWS)."
        )
    directory = Path(tempfile.mkdtemp(prefix="keyfob-", dir=launch.scratch_dir)).resolve()
    if launch.sandbox is None:
        return directory, command
    try:
        return directory, launch.sandbox.around(make_rooms(directory, launch.files), command, launch.environment)
    except (OSError, Unavailable):
        shutil.rmtree(directory, ignore_errors=True)
        raise


def find_program(command: str, command_path: str) -> str:
    """The absolute path of a program; `Unavailable` if there is none. A relative path is never meant."""
    # Relative to what? The child's directory is empty, and ours is nobody's business.
    found = command if command.startswith("/") else None
    if "/" not in command:
        found = shutil.which(command, path=command_path)
    if found is None or not os.access(found, os.X_OK):
        raise Unavailable("The MCP server's program is not installed on this gateway.")
    return found


async def _count(process: asyncio.subprocess.Process, redactor: Redactor | None) -> int:
    """Keep stderr flowing, and have `redactor` count the values in it; returns how many bytes there were."""
    read = 0
    # A full pipe would stop the server in the middle of its work.
    while process.stderr is not None and (chunk := await process.stderr.read(CHUNK)):
        read += len(chunk)
        if redactor is not None:
            redactor.feed(chunk)
    if redactor is not None:
        redactor.finish()
    return read


def _die_with_parent() -> Callable[[], None] | None:
    """What the child does between fork and exec. Everything it needs exists before the fork."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died between fork and prctl: then no signal would ever come.
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    # It exists and changed its user: not gone.
    except PermissionError:
        return True
    return True


def _group_runs(group: int) -> bool:
    """Whether a member of the group is more than a zombie."""
    for pid in psutil.pids():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _terminate_below(pid: int) -> None:
    with suppress(psutil.Error):
        for inside in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                inside.terminate()


def _close_transport(process: asyncio.subprocess.Process) -> None:
    """A descendant that left the group may hold a pipe open, and the transport with it; nothing public closes it."""
    transport = getattr(process, "_transport", None)
    close = getattr(transport, "close", None)
    if callable(close):
        with suppress(PermissionError):
            close()
