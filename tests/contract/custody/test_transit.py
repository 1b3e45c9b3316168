"""The transit engine of a real OpenBao keeps keys as the one in memory does, with a token that may do nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from services.dev.platform import Platform
from shared.custody.keks import Kek
from shared.custody.providers.port import KeyProviderRefused
from shared.custody.providers.transit import TransitProvider
from shared.egress import Origin
from tests.fakes.loopback import free_port, write_secret
from tests.transit_engine import KEYS, administrator, transit_provider
from tests.unit.custody.provider_contract import Keepers, WrappingProviderContract


@pytest_asyncio.fixture(loop_scope="session")
async def transit(platform: Platform, tmp_path: Path) -> AsyncIterator[TransitProvider]:
    async with transit_provider(platform, "sync", tmp_path) as provider:
        yield provider


class TestOpenBao(WrappingProviderContract):
    @pytest.fixture
    def keepers(self, transit: TransitProvider, tmp_path: Path) -> Keepers:
        write_secret(tmp_path / "wrong-token", "s.nothing")
        return Keepers(
            transit,
            other_service=replace(transit, service="audit"),
            other_key=replace(transit, key=KEYS[1]),
            denied=replace(transit, token_file=tmp_path / "wrong-token"),
            away=replace(transit, origin=Origin("http", "127.0.0.1", free_port())),
        )


@pytest.mark.parametrize("place", [{"mount": "nowhere"}, {"key": "missing"}, {"key": "of somebody/else"}])
async def test_a_place_that_is_not_there_is_not_made_on_the_way(
    transit: TransitProvider, place: dict[str, str]
) -> None:
    with pytest.raises(KeyProviderRefused):
        await replace(transit, **place).keep(Kek.generate())  # type: ignore[arg-type]


async def test_a_rotated_transit_key_still_opens_and_a_retired_version_does_not(
    transit: TransitProvider, platform: Platform
) -> None:
    admin, kek = administrator(platform), Kek.generate()
    line = await transit.keep(kek)
    engine = admin.secrets.transit
    await asyncio.to_thread(engine.rotate_key, name=KEYS[0], mount_point=transit.mount)
    assert (await transit.open(line)).matches(kek)
    await asyncio.to_thread(
        engine.update_key_configuration, name=KEYS[0], min_decryption_version=2, mount_point=transit.mount
    )
    with pytest.raises(KeyProviderRefused, match="retired"):
        await transit.open(line)
