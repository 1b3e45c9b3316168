"""Several starts at once, of which none is left running when one fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


async def together(*starts: Coroutine[Any, Any, None]) -> None:
    """Run all at once; raises the first failure itself, when the others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
