"""Files that hold one key as a line of text: mode 0600, there whole or not at all, and never written over."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from shared.crypto.key_files import KeyFileRefused, read_key_file, write_key_file

if TYPE_CHECKING:
    from pathlib import Path


def read_key_line(path: Path) -> str:
    """The line in `path` without its line break; `KeyFileRefused` if others may read it or it is not one line."""
    content = read_key_file(path)
    try:
        line = content.decode("ascii").removesuffix("\n")
    except UnicodeDecodeError:
        line = ""
    if not line or not line.isprintable():
        # Not chained: a decoder's error carries the whole content.
        raise KeyFileRefused(f"{path} does not hold one line of text with a key.") from None
    return line


def write_new_key_line(path: Path, line: str) -> None:
    """Write `line` to `path`, which must not exist; `KeyFileRefused` if it does, or if it cannot be written.

    The file appears under its name complete and durable. What is there already is a key that something may be sealed
    under, so it stays as it is.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_key_file(draft, f"{line}\n".encode("ascii"))
        # Unlike a rename, a second name is never given where one exists.
        os.link(draft, path)
    except FileExistsError:
        raise KeyFileRefused(f"{path} exists already; a key is never written over: choose another name.") from None
    except OSError as problem:
        raise KeyFileRefused(f"Can't write the key file {path}: {problem.strerror}.") from problem
    finally:
        draft.unlink(missing_ok=True)
    _make_durable(path.parent)


def _make_durable(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
