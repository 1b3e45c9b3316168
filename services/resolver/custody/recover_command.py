"""What `keyfob keys recover` asks and says; `recovering` does the work."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path

from services.resolver.custody.recovering import AlreadyThere, Lost, Recovery, Restored, books_for, restore
from services.resolver.settings import ResolverSettings
from shared.config import CommonSettings, Misconfigured
from shared.crypto.key_files import KeyFileRefused
from shared.custody import RecoveryKey
from shared.custody.providers import KeyProviderRefused, provider_for
from shared.egress import Egress
from shared.errors import BadRequest, Unavailable


def recover_keys(file: Path | None, *, retired: bool) -> int:
    """Restore what can be restored and say what can't; 1 if something is lost. `Misconfigured` for what is missing."""
    settings, common = ResolverSettings(), CommonSettings()
    if settings.keys_dir is None:
        raise Misconfigured("Set KEYFOB_RESOLVER_KEYS_DIR to the directory that the keys shall lie in.")
    try:
        key = RecoveryKey.load(file) if file is not None else RecoveryKey.from_text(_asked())
        settings.keys_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        outcomes = asyncio.run(_restored(settings, common, key, settings.keys_dir, retired=retired))
    except (KeyFileRefused, BadRequest, KeyProviderRefused, Unavailable) as problem:
        raise Misconfigured(problem.detail) from None
    except OSError as problem:
        raise Misconfigured(f"Can't make {settings.keys_dir}: {problem.strerror}.") from None
    sys.stdout.writelines(f"{line}\n" for line in told(outcomes))
    return 1 if any(isinstance(one, Lost) for one in outcomes) else 0


def _asked() -> str:
    """The recovery key's text: typed without an echo, or piped in. Never an argument, which others could read."""
    if sys.stdin.isatty():
        return getpass("Recovery key (not shown): ").strip()
    return sys.stdin.readline().strip()


async def _restored(
    settings: ResolverSettings, common: CommonSettings, key: RecoveryKey, directory: Path, *, retired: bool
) -> list[Recovery]:
    books = books_for(settings)
    try:
        async with Egress(mode=common.mode) as egress:
            provider = provider_for(settings.provider(service="resolver", mode=common.mode), egress)
            return await restore(books, key, directory=directory, provider=provider, retired=retired)
    finally:
        await books.engine.dispose()


def told(outcomes: Sequence[Recovery]) -> list[str]:
    """A sentence for each key, and what to do next."""
    if not outcomes:
        return ["The database knows no installation key: there is nothing to restore."]
    said = [_sentence(one) for one in outcomes]
    if any(isinstance(one, Restored) for one in outcomes):
        said.append("Put the files into the keys directory of every resolver replica, and start them again.")
    if any(isinstance(one, Lost) for one in outcomes):
        said.append("What is lost has to be entered again by its owners. References need no key and keep working.")
    return said


def _sentence(one: Recovery) -> str:
    match one:
        case Restored(key_id, path, values):
            return f"Restored: {key_id} in {path}; {values} values open with it."
        case AlreadyThere(key_id, path, values):
            return f"Not lost: {key_id} lies in {path}; {values} values open with it."
        case Lost(key_id, values, why):
            return f"LOST: {key_id}, and {values} values with it: {why}."
