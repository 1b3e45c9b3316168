"""One at a time, by the kernel's lock: it ends with its process however that ends, where a file with a number stays."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.dev.platform.failures import PlatformFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def sole_use(file: Path, *, of: Path) -> Iterator[None]:
    """Hold the lock `file`; raises PlatformFailure, which names the directory `of`, where another run holds it."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PlatformFailure(f"{of} is in use by another run") from None
        yield


@contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """Hold the lock `file`, after whoever holds it now: for what takes a moment."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
