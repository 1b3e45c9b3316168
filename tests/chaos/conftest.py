"""One furnished stack for all experiments of this folder, stopped when its last test has ended."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.chaos.ordeal import Ordeal, ordeal
from tests.e2e.stages import furnished_stage


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def attacked() -> AsyncIterator[Ordeal]:
    """The installation that is hurt."""
    async with furnished_stage() as stage, ordeal(stage) as running:
        yield running
