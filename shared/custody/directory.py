"""A directory of installation keys: what `keyfob keys generate` leaves there and a service finds.

    <key id>.kek        the key's line, as its provider keeps it (`shared.custody.providers`)
    <key id>.recovery   base64 of the key sealed to a recovery key (`shared.custody.recovery`), if there is one

Several keys may lie there; which of them seals what is new stands in the service's database.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from typing import TYPE_CHECKING

from shared.crypto.key_files import KeyFileRefused
from shared.custody.key_lines import read_key_line, write_new_key_line
from shared.custody.providers.port import save_new_kept
from shared.custody.recovery import RecoveryPublicKey, read_recovery_ids, seal_for_recovery
from shared.errors import SealInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from shared.custody.keks import Kek
    from shared.custody.providers.port import KekProvider

KEY_SUFFIX = ".kek"
RECOVERY_SUFFIX = ".recovery"


def key_path(directory: Path, key_id: str) -> Path:
    """Where a key lies."""
    return directory / f"{key_id}{KEY_SUFFIX}"


def recovery_path(directory: Path, key_id: str) -> Path:
    """Where the same key lies, sealed for recovery."""
    return directory / f"{key_id}{RECOVERY_SUFFIX}"


def key_files(directory: Path) -> list[Path]:
    """All files of keys, by name; `KeyFileRefused` where there is no such directory."""
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == KEY_SUFFIX and path.name[0] != ".")
    except OSError as problem:
        raise KeyFileRefused(f"Can't look for installation keys in {directory}: {problem.strerror}.") from problem


async def save_new_key(
    directory: Path, kek: Kek, provider: KekProvider, *, recovery: RecoveryPublicKey | None
) -> tuple[Path, Path | None]:
    """Write a new key, and its recovery blob first; where they are. Errors as `save_new_kept` has them."""
    sealed = None
    if recovery is not None:
        # First, so that nobody finds the key in between and takes it for one that was never to be recovered.
        sealed = recovery_path(directory, kek.key_id)
        write_new_key_line(sealed, b64encode(seal_for_recovery(kek, recovery)).decode())
    path = key_path(directory, kek.key_id)
    await save_new_kept(path, kek, provider)
    return path, sealed


def read_recovery_blob(directory: Path, key_id: str) -> bytes | None:
    """The recovery blob of a key, None without one; `KeyFileRefused` for a file that holds none, or another key's."""
    path = recovery_path(directory, key_id)
    if not path.exists():
        return None
    try:
        blob = binascii.a2b_base64(read_key_line(path), strict_mode=True)
        named = read_recovery_ids(blob).kek
    except (ValueError, SealInvalid):
        named = ""
    if named != key_id:
        raise KeyFileRefused(f"{path} does not hold the recovery blob of the key {key_id}.")
    return blob
