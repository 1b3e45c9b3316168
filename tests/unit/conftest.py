"""Unit tests need no network, and leave nothing at work: a socket other than the event loop's own pair is an error."""

import asyncio
from collections.abc import Iterator

import pytest
import pytest_asyncio
import pytest_socket

LAST_STEPS_WITHIN_S = 1.0


@pytest.fixture(autouse=True)
def _no_network() -> None:
    pytest_socket.disable_socket(allow_unix_socket=True)


@pytest_asyncio.fixture(scope="session")
async def session_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(autouse=True)
def _no_task_left(session_loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """What outlives its test would disturb the one during which it is collected."""
    yield
    if left := asyncio.all_tasks(session_loop):
        # The loop closes abandoned generators in tasks of its own.
        session_loop.run_until_complete(asyncio.wait(left, timeout=LAST_STEPS_WITHIN_S))
        assert not asyncio.all_tasks(session_loop)
