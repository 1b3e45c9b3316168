"""Environments for MCP servers that others wrote: each a venv of its own, from a lock file with hashes.

Their dependencies are not ours, so they never share our environment. A lock is made by

    uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import platform
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from services.dev.platform.caches import cache_directory, fetcher_environment
from services.dev.platform.failures import Unavailable
from services.dev.platform.processes import Process, run_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_LOCKS = Path(__file__).with_name("tools")
_INSTALL_WITHIN_S = 600.0
_POLL_S = 0.2


def tell(line: str) -> None:
    """Show a line of progress to whoever waits."""
    sys.stderr.write(f"{line}\n")


async def tool_environment(name: str, *, say: Callable[[str], None] = tell) -> Path:
    """The `bin` folder of the tool's environment, made the first time (10 to 60 s), instant after that.

    Raises Unavailable when there is no lock of this name, ProcessFailed when it can't be installed.
    """
    lock = _LOCKS / f"{name}.lock"
    if not lock.exists():
        known = ", ".join(sorted(file.stem for file in _LOCKS.glob("*.lock")))
        raise Unavailable(f"no tool environment is called {name}; there is {known}")
    # With the version of Python: a venv belongs to the one that made it, and another needs its own.
    digest = hashlib.sha256(lock.read_bytes() + platform.python_version().encode()).hexdigest()[:12]
    place = cache_directory("tools") / f"{name}-{digest}"
    # A venv can't be moved (its scripts name its path), so a marker that is written last makes it count.
    marker = place / ".complete"
    if not marker.exists():
        async with _alone(place.with_suffix(".making")):
            # Whoever held the lock before us may have made it.
            if not marker.exists():
                await _make(name, lock, place, say)
                marker.touch()
    return place / "bin"


async def _make(name: str, lock: Path, place: Path, say: Callable[[str], None]) -> None:
    log = place.with_suffix(".log")
    say(f"Installing {name} into an environment of its own (once; log: {log}) …")
    # What is there without the marker is the rest of an installation that was killed.
    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
    # Our own pip can install into it, and one that stands there only for that takes five seconds to make.
    borrow = importlib.util.find_spec("pip") is not None
    venv = (sys.executable, "-m", "venv", *(("--without-pip",) if borrow else ()), str(place))
    environment = fetcher_environment()
    await run_to_end(Process(f"venv of {name}", venv, env=environment, log=log), within_s=_INSTALL_WITHIN_S)
    python = str(place / "bin" / "python")
    # Wheels only: to build from source pip would run foreign code, and fetch build tools that no hash pins.
    options = ("--disable-pip-version-check", "--no-input", "--require-hashes", "--only-binary", ":all:")
    pip = (sys.executable, "-m", "pip", "--python", python) if borrow else (python, "-m", "pip")
    install = (*pip, "install", *options, "--requirement", str(lock))
    await run_to_end(Process(f"pip for {name}", install, env=environment, log=log), within_s=_INSTALL_WITHIN_S)
    say(f"Installed {name}.")


@asynccontextmanager
async def _alone(file: Path) -> AsyncIterator[None]:
    """Hold a lock between processes; whoever comes second waits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        while True:
            try:
                # Asked again and again: a flock that waits would hold up the event loop, and could not be cancelled.
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_POLL_S)
        yield
