"""Settings that cannot work end the start with a sentence."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from services.policy.app import Settings, build
from services.policy.settings import PolicySettings
from shared.config import CommonSettings, Misconfigured
from shared.crypto.signing import SigningKey


def keys(text: str) -> PolicySettings:
    return PolicySettings(resolver_keys=text)


def test_resolver_keys_are_checked() -> None:
    one, two = (SigningKey.generate().verify_key.to_base64() for _ in range(2))
    assert keys(f"{one}, {two},").pinned_resolver_keys() == (one, two)
    assert keys("").pinned_resolver_keys() == ()
    with pytest.raises(Misconfigured, match="RESOLVER_KEYS"):
        keys("not-a-key").pinned_resolver_keys()


async def test_a_signing_key_that_nobody_pins_is_refused(tmp_path: Path) -> None:
    SigningKey.generate().save(tmp_path / "policy.key")
    common = CommonSettings(policy_key=SigningKey.generate().verify_key.to_base64())
    settings = Settings(common=common, policy=PolicySettings(signing_key_file=tmp_path / "policy.key"))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Misconfigured, match="KEYFOB_POLICY_KEY"):
            build(settings, session)


@pytest.mark.parametrize("mode", [0o644, 0o640])
async def test_a_signing_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "policy.key"
    SigningKey.generate().save(file)
    file.chmod(mode)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Misconfigured, match="0600"):
            build(Settings(policy=PolicySettings(signing_key_file=file)), session)
