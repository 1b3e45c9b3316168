"""Installation keys that only a real OpenBao opens: the files alone are worth nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from services.dev.platform import Platform
from services.resolver.custody.standing import CustodyAway
from shared.config import Misconfigured
from shared.custody.directory import key_path
from shared.custody.providers.file import FileProvider
from shared.custody.providers.transit import TransitProvider
from shared.egress import Origin
from tests.fakes.loopback import free_port, write_secret
from tests.integration.custody.conftest import ALICE, House
from tests.transit_engine import transit_provider
from tests.waiting import until


@pytest_asyncio.fixture(loop_scope="session")
async def transit(house: House, platform: Platform, tmp_path: Path) -> AsyncIterator[TransitProvider]:
    """The house's keys lie behind it."""
    async with transit_provider(platform, "resolver", tmp_path) as provider:
        house.provider = provider
        yield provider


@pytest.mark.usefixtures("transit")
async def test_values_are_sealed_rotated_and_opened_again_after_a_start(house: House) -> None:
    old = await house.generate()
    assert key_path(house.directory(), old).read_text().startswith(f"keyfob-wrapped-kek-1 transit {old} ")
    async with house.replica() as replica:
        await replica.enter(range(5))
        new = await house.generate()
        await replica.desk.rotate(None, by=ALICE)
        await replica.rotated()
    async with house.replica() as replica:
        assert all([await replica.opens(number) for number in range(5)])
        assert dict((await replica.desk.now()).values) == {new: 5}


async def test_a_key_without_the_engine_that_wrapped_it_ends_the_start(house: House, transit: TransitProvider) -> None:
    await house.generate()
    for provider in (FileProvider(), replace(transit, key="another"), replace(transit, service="sync")):
        house.provider = provider
        with pytest.raises(Misconfigured, match=r"\.kek"):
            await house.standing().start()


async def test_a_token_that_may_not_ends_the_start(house: House, transit: TransitProvider) -> None:
    await house.generate()
    write_secret(transit.token_file, "s.nothing")
    with pytest.raises(Misconfigured) as refused:
        await house.standing().start()
    assert "s.nothing" not in str(refused.value)


async def test_while_the_engine_is_away_a_start_goes_on_without_local_values(
    house: House, transit: TransitProvider
) -> None:
    await house.generate()
    house.provider = replace(transit, origin=Origin("http", "127.0.0.1", free_port()))
    async with house.replica() as replica:
        with pytest.raises(CustodyAway):
            await replica.opens(0)
        replica.standing.shelf.provider = transit
        await until(lambda: replica.standing.reason is None, within=10)
        await replica.enter(range(1))
        assert await replica.opens(0)
