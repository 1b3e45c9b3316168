"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
async def until(
    condition: Callable[[], Awaitable[T]], *, within: float = ..., every: float = ..., what: str = ...
) -> T: ...
@overload
async def until(condition: Callable[[], T], *, within: float = ..., every: float = ..., what: str = ...) -> T: ...
async def until(condition: Callable[[], Any], *, within: float = 5.0, every: float = 0.01, what: str = "") -> Any:
    """The first truthy answer of `condition` (plain or async), asked again every `every` seconds.

    Fails the test after `within` seconds, naming `what` was awaited and the last answer.
    """
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() >= deadline:
            awaited = what or inspect.getsource(condition).strip()
            raise AssertionError(f"not within {within:g} s: {awaited} (last answer: {answer!r})")
        await asyncio.sleep(every)
