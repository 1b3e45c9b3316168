"""One stack for the story and for everything else here, stopped when the last test of this folder has ended."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.dev.demo.stage import Stage
from services.dev.demo.steps import opening
from tests.e2e.stages import empty_stage

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The story is played on an empty stage: it goes first, and the others use what it leaves behind."""
    places = [index for index, item in enumerate(items) if item.path.parent == _HERE]
    ordered = sorted((items[index] for index in places), key=lambda item: item.path.name != "test_story.py")
    for index, item in zip(places, ordered, strict=True):
        items[index] = item


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """The stage that the story is played on."""
    async with empty_stage() as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def furnished(stage: Stage) -> Stage:
    """The same stage with two gateways and everything assigned, whether the story was played or not."""
    if not stage.hospitals:
        await opening.start_everything(stage)
        await opening.open_hospitals(stage)
        await opening.administer(stage)
    return stage
