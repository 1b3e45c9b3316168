"""Makes keys on this machine, for `keyfob keys`; apart, since other commands should not load any cryptography."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic_settings import SettingsConfigDict

from services.cli.connection import CommandFailed
from shared.config import CommonSettings
from shared.crypto.key_files import KeyFileRefused
from shared.custody import Kek, KeyTextInvalid, RecoveryKey, RecoveryPublicKey
from shared.custody.directory import save_new_key
from shared.custody.providers import KeyProviderRefused, KeyProviderUnavailable, provider_for
from shared.custody.settings import CustodySettings
from shared.egress import Egress
from shared.errors import BadRequest


class ResolverKeys(CustodySettings):
    """The resolver's own settings about keys, so that a key is made where and as the resolver looks for it."""

    model_config = SettingsConfigDict(env_prefix="KEYFOB_RESOLVER_", frozen=True, extra="ignore")


def make_installation_key(directory: Path | None, recovery: str | None) -> dict[str, str | None]:
    """A new key in `directory` or where the settings say, and its blob for the recovery key of that text."""
    settings = ResolverKeys()
    where = directory or settings.keys_dir
    if where is None:
        raise CommandFailed("Say where the key shall lie: --directory, or KEYFOB_RESOLVER_KEYS_DIR.")
    return _made(settings, where, None if recovery is None else _public(recovery))


def make_recovery_key(file: Path) -> dict[str, str]:
    """A new recovery key, its private half in `file`, which must not exist yet."""
    key = RecoveryKey.generate()
    try:
        key.save_new(file)
    except KeyFileRefused as problem:
        raise CommandFailed(problem.detail) from None
    return {"recovery_key_id": key.public.key_id, "file": str(file), "public": key.public.to_text()}


def _public(text: str) -> RecoveryPublicKey:
    try:
        return RecoveryPublicKey.from_text(text.strip())
    except KeyTextInvalid as problem:
        raise CommandFailed(problem.detail) from None


def _made(settings: CustodySettings, directory: Path, recovery: RecoveryPublicKey | None) -> dict[str, str | None]:
    kek = Kek.generate()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path, blob = asyncio.run(_kept(settings, directory, kek, recovery))
    except OSError as problem:
        raise CommandFailed(f"Can't make {directory}: {problem.strerror}.") from None
    except (KeyFileRefused, KeyProviderRefused, KeyProviderUnavailable, BadRequest) as problem:
        raise CommandFailed(problem.detail) from None
    return {
        "key_id": kek.key_id,
        "file": str(path),
        "recovery_file": None if blob is None else str(blob),
        "recovery_key_id": None if recovery is None else recovery.key_id,
    }


async def _kept(
    settings: CustodySettings, directory: Path, kek: Kek, recovery: RecoveryPublicKey | None
) -> tuple[Path, Path | None]:
    mode = CommonSettings().mode
    async with Egress(mode=mode) as egress:
        provider = provider_for(settings.provider(service="resolver", mode=mode), egress)
        return await save_new_key(directory, kek, provider, recovery=recovery)
