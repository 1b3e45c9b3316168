"""One stack for the story, shared by its steps in their order."""

from collections.abc import AsyncIterator

import pytest_asyncio

from services.dev.demo.stage import Stage
from tests.e2e.stages import empty_stage


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """The stage that the story is played on."""
    async with empty_stage() as running:
        yield running
