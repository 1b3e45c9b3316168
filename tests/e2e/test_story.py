"""The hospital story, a test a step: what `make demo` shows is what is tested."""

import pytest

from services.dev.demo.play import STEPS, Step
from services.dev.demo.stage import Stage

_FAILED: list[str] = []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("step", STEPS, ids=[perform.__name__ for _, perform in STEPS])
async def test_a_step_of_the_story_holds(stage: Stage, step: Step) -> None:
    if _FAILED:
        pytest.fail(f"an earlier step failed: {_FAILED[0]}")
    title, perform = step
    _FAILED.append(title)
    await perform(stage)
    _FAILED.clear()
