"""The installation keys that this replica was given: files in one directory, each opened once.

A new file is found at the next look; one that is gone is still held in memory until the process ends, but no longer
counts as given: whoever decides on a rotation must know what the next start will find.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from shared.crypto.key_files import KeyFileRefused
from shared.custody import Kek, Keyring
from shared.custody.directory import key_files, read_recovery_blob
from shared.custody.providers import KekProvider, KeyProviderUnavailable, load_kept
from shared.errors import Unavailable

_log = structlog.get_logger(__name__)

Stamp = tuple[str, int, int, int]
"""(name, inode, size, time of the last change in ns): another one is another file."""


class KeyNotHere(Unavailable):
    """Raised when the key that seals what is new is not among those of this replica."""

    kind = "key-not-here"
    title = "This replica does not have the installation key"


@dataclass(slots=True)
class KeyShelf:
    """Keys by id. `look` first."""

    directory: Path
    provider: KekProvider
    given: frozenset[str] = frozenset()
    """Ids of the keys whose files are there."""
    _keks: dict[str, Kek] = field(default_factory=dict)
    _read: dict[Stamp, str] = field(default_factory=dict)
    _rings: dict[str, Keyring] = field(default_factory=dict)

    async def look(self) -> None:
        """Open what is new in the directory.

        `KeyFileRefused` for a file that can't be used, `KeyProviderUnavailable` when the provider gave no answer.
        """
        found: dict[Stamp, str] = {}
        for path in key_files(self.directory):
            stamp = _stamp(path)
            found[stamp] = self._read.get(stamp) or await self._open(path)
        # Only when every file opened: after a failure what was known before still counts.
        self._read, self.given = found, frozenset(found.values())

    async def look_again(self) -> None:
        """The same for a service that runs: a file that can't be used now changes nothing."""
        try:
            await self.look()
        except (KeyFileRefused, KeyProviderUnavailable) as problem:
            _log.warning("key-not-opened", reason=problem.detail)

    def ring(self, current: str) -> Keyring:
        """All keys, `current` sealing what is new; `KeyNotHere` without it."""
        kek = self._keks.get(current)
        if kek is None:
            raise KeyNotHere(f"This replica does not have the installation key {current}.")
        ring = self._rings.get(current)
        if ring is None:
            ring = self._rings[current] = Keyring(kek, *self._keks.values())
        return ring

    def any_ring(self) -> Keyring | None:
        """All keys, for comparing; None while there is none."""
        # Which of them seals does not matter here, as nothing is sealed with it.
        return self.ring(min(self._keks)) if self._keks else None

    def recovery_blob(self, key_id: str) -> bytes | None:
        """The recovery blob that lies beside a key; `KeyFileRefused` for a file that holds none."""
        return read_recovery_blob(self.directory, key_id)

    async def _open(self, path: Path) -> str:
        kek = await load_kept(path, self.provider)
        if kek.key_id not in self._keks:
            self._keks[kek.key_id] = kek
            # Rings never change: those that were made before lack the new key.
            self._rings.clear()
            _log.info("key-opened", key=kek.key_id)
        return kek.key_id


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError as problem:
        raise KeyFileRefused(f"Can't open the key file {path}: {os.strerror(problem.errno or 0)}.") from problem
    return path.name, status.st_ino, status.st_size, status.st_mtime_ns
