"""The arguments and environments of every process of the machine, looked at again and again while the run goes on.

A process that lives for a moment only may be missed, one that lives for a tenth of a second is not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_EVERY_S = 0.04
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Seen:
    """A process as it was at one moment."""

    pid: int
    arguments: bytes = field(repr=False)
    environment: bytes = field(repr=False)

    @property
    def words(self) -> list[str]:
        return self.arguments.decode(errors="replace").split("\0")

    @property
    def name(self) -> str:
        """Enough of the arguments to know it; what stands in them was searched before anybody reads this."""
        return f"{self.pid} ({' '.join(self.words)[:120]})"


@dataclass(slots=True)
class Watch:
    """`with Watch() as watch:` looks all the time; `seen` has each different sight once."""

    looks: int = 0
    unreadable: set[int] = field(default_factory=set)
    """Processes whose environment was closed to us, as it then is to whoever else runs as this user."""
    _seen: dict[Seen, None] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def seen(self) -> list[Seen]:
        return list(self._seen)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look_on, name="watch over /proc", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(_EVERY_S):
            for one in self._all():
                self._seen.setdefault(one)
            self.looks += 1

    def _all(self) -> Iterator[Seen]:
        for place in _PROC.iterdir():
            # It may end at any moment, and then there is nothing to see.
            if place.name.isdigit():
                with suppress(OSError):
                    seen = self._one(int(place.name))
                    if seen is not None:
                        yield seen

    def _one(self, pid: int) -> Seen | None:
        place = _PROC / str(pid)
        arguments = (place / "cmdline").read_bytes()
        if not arguments:
            return None  # the kernel's own
        try:
            environment = (place / "environ").read_bytes()
        except PermissionError:
            self.unreadable.add(pid)
            environment = b""
        # Between the two it may have become another program: what belongs to whom would then be told wrongly.
        return Seen(pid, arguments, environment) if (place / "cmdline").read_bytes() == arguments else None
