"""Files that hold private keys: 0600 or narrower, written whole or not at all.

There is no passphrase: the file's mode is the protection.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING, Final

from shared.errors import KeyfobError

if TYPE_CHECKING:
    from pathlib import Path

WIDEST_MODE: Final = 0o600
LARGEST_KEY_FILE: Final = 4096
"""Bytes; a PEM Ed25519 or X25519 key takes 119."""


class KeyFileRefused(KeyfobError):
    """Raised when a key file is absent, too widely readable or not a key; the detail says how to mend it."""

    kind = "key-file-refused"
    title = "The key file can't be used"


def read_key_file(path: Path) -> bytes:
    """Read a private key's file, if nobody but its owner can read it.

    Mode and size are taken from the open file, so what was checked is what is read.
    """
    try:
        # Non-blocking, because opening a pipe that nobody writes to would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        detail = f"Can't open the key file {path}: {problem.strerror}."
        raise KeyFileRefused(detail) from problem
    try:
        _check(path, os.fstat(descriptor))
        return os.read(descriptor, LARGEST_KEY_FILE)
    finally:
        os.close(descriptor)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        detail = f"{path} is not a regular file."
    elif stat.S_IMODE(status.st_mode) & ~WIDEST_MODE:
        mode = stat.S_IMODE(status.st_mode)
        detail = f"{path} has mode {mode:04o}; a private key must be 0600 or narrower (chmod 600 {path})."
    elif status.st_size > LARGEST_KEY_FILE:
        detail = f"{path} is larger than any key ({status.st_size} bytes)."
    else:
        return
    raise KeyFileRefused(detail)


def write_key_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` with mode 0600: after a crash there is the old file or the new one, whole."""
    # In the same directory: a rename is atomic only within one file system.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, WIDEST_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            # Before the rename, or a crash could leave the new name with nothing behind it.
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
