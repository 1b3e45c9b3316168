"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    condition: Callable[[], T | Awaitable[T]], *, within: float = 5.0, every: float = 0.01, what: str = ""
) -> T:
    """The first truthy answer of `condition` (plain or async), asked again every `every` seconds.

    Fails the test after `within` seconds, naming `what` was awaited and the last answer.
    """
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        value: T = await answer if inspect.isawaitable(answer) else answer  # type: ignore[assignment]
        if value:
            return value
        if time.monotonic() >= deadline:
            awaited = what or inspect.getsource(condition).strip()
            raise AssertionError(f"not within {within:g} s: {awaited} (last answer: {value!r})")
        await asyncio.sleep(every)
