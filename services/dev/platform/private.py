"""Files that only their owner can read."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Write a file with mode 0600, whole or not at all, in place of what was there."""
    draft = _draft_of(file, text)
    draft.replace(file)


def write_private_once(file: Path, text: str) -> None:
    """Write a file with mode 0600 unless it is there: of two that try at once, the first one's text stays."""
    draft = _draft_of(file, text)
    try:
        # Linked and not renamed: a rename would take the place of what somebody else has just written.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _draft_of(file: Path, text: str) -> Path:
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    return draft
