"""One child process that can't outlive its parent and whose environment is exactly what was given.

Each running `Process` has a daemon thread that starts the child and waits for it. The thread is not a convenience:
PR_SET_PDEATHSIG fires when the *thread* that started the child ends, so the child must be started by a thread that
lives as long as it does, whatever event loop or executor asked for it.

`Supervisor`, which keeps several of them running, is in `supervision` and exported here too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from services.dev.platform.failures import ProcessFailed
from services.dev.platform.supervision import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Process", "Supervisor", "plain_environment", "run_to_end"]

_LAUNCHER = Path(__file__).with_name("launch.py")
_SAFE_TO_PASS_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


def plain_environment(**more: str) -> dict[str, str]:
    """A base environment for a child: where programs, home and certificates are, and what is given in `more`.

    No proxies and no credentials of whoever runs this: the platform talks to loopback only.
    """
    base = {name: os.environ[name] for name in _SAFE_TO_PASS_ON if name in os.environ}
    return {"LANG": "C.UTF-8", **base, **more}


class Process:
    """A child process in a session of its own.

    `env` is the child's whole environment. Never put a value or token into `argv`: every user of the machine
    can read it. `stop_signal` asks the child to end; `death_signal` is what the kernel sends it when this
    process ends without having stopped it. Output is appended to `log`.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = tuple(argv)
        self._env = dict(env)
        self._cwd = cwd
        self._user = user
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._child: subprocess.Popen[bytes] | None = None
        self._exited: Future[int] | None = None

    def __repr__(self) -> str:
        return f"Process({self.name!r}, pid={self.pid}, returncode={self.returncode})"

    @property
    def pid(self) -> int | None:
        """Process id of the present or last child; None before the first start."""
        return self._child.pid if self._child else None

    @property
    def returncode(self) -> int | None:
        """Exit status of the last child (negative: the signal that ended it), None while it runs."""
        return self._exited.result() if self._exited and self._exited.done() else None

    @property
    def running(self) -> bool:
        """Whether a child was started and hasn't ended (a suspended one hasn't)."""
        return self._exited is not None and not self._exited.done()

    def start(self) -> None:
        """Start the child (a few milliseconds); again after it has ended. Nothing happens while it runs.

        Raises ProcessFailed when the operating system refuses.
        """
        if self.running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        spawned: Future[subprocess.Popen[bytes]] = Future()
        exited: Future[int] = Future()
        # Marked as running, it can't be cancelled by a waiter that gives up.
        exited.set_running_or_notify_cancel()
        threading.Thread(target=self._live, args=(spawned, exited), name=f"owner of {self.name}", daemon=True).start()
        try:
            self._child = spawned.result()
        except OSError as error:
            raise ProcessFailed(self.name, f"can't start ({error.strerror})", self.log) from error
        # Only once a child runs: after a failed start the end of the one before still stands, and `running` is no lie.
        self._exited = exited

    def _live(self, spawned: Future[subprocess.Popen[bytes]], exited: Future[int]) -> None:
        """Start the child, wait until it ends, and end what it left behind in its group."""
        try:
            child = self._spawn()
        except OSError as error:
            spawned.set_exception(error)
            return
        spawned.set_result(child)
        # Not yet reaped, the dead leader keeps its group's number from being given to somebody else.
        with suppress(ChildProcessError):
            # Popen looks before it sends a signal and reaps a child that has just ended: then none is left to wait for.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        exited.set_result(child.wait())

    def _spawn(self) -> subprocess.Popen[bytes]:
        locale = "locale" if "LC_CTYPE" in self._env else "-"
        facts = (str(os.getpid()), str(int(self._death_signal)), self._user or "-", locale)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                (sys.executable, "-I", "-S", str(_LAUNCHER), *facts, *self._argv),
                env=self._env,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def wait(self, timeout_s: float | None = None) -> int:
        """The child's exit status once it has ended; TimeoutError after `timeout_s` seconds."""
        if self._exited is None:
            message = f"{self.name} was never started"
            raise RuntimeError(message)
        async with asyncio.timeout(timeout_s):
            return await asyncio.wrap_future(self._exited)

    async def stop(self, grace_s: float = 10.0) -> None:
        """Ask the child to end, and end it by SIGKILL after `grace_s` seconds. Returns when it has ended."""
        if not self.running:
            return
        self._signal(self._stop_signal)
        # A suspended child acts on the signal only when it goes on.
        self.resume()
        try:
            await self.wait(grace_s)
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """SIGKILL the child itself, as a crash would; what it leaves in its group is ended after it."""
        self._signal(signal.SIGKILL)

    def suspend(self) -> None:
        """SIGSTOP: the child stays there and does nothing from now on, until `resume`."""
        self._signal(signal.SIGSTOP)
        if self._child is not None and self.running:
            # For a moment: until the first of its threads has seen the signal, the others go on answering.
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT: a suspended child goes on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self.running:
            self._child.send_signal(number)


async def run_to_end(process: Process, *, within_s: float) -> None:
    """Run a program that ends by itself; raises ProcessFailed when it fails or takes longer than `within_s` seconds."""
    process.start()
    try:
        code = await process.wait(within_s)
    except TimeoutError:
        raise ProcessFailed(process.name, f"took longer than {within_s:g} s", process.log) from None
    finally:
        if process.running:
            process.kill()
            # Its group ends right after it: whoever gave up may remove its directory.
            await process.wait()
    if code:
        raise ProcessFailed(process.name, f"ended with {code}", process.log)
