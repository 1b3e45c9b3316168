"""Locks that outlive a transaction: each on a connection of its own, gone at once when the process dies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.sync.store.outages import own_errors

# Of the session and not of a transaction: whoever dies loses it at once, whatever he was doing.
_TRY: Final = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
_WAIT: Final = text("SELECT pg_advisory_lock(hashtextextended(:name, 0))")
_UNLOCK: Final = text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))")


@asynccontextmanager
async def held(engine: AsyncEngine, name: str, *, wait: bool) -> AsyncIterator[bool]:
    """Hold the lock `name` across all replicas while the block runs; False if another does and `wait` is off."""
    parameters = {"name": name}
    with own_errors():
        async with engine.connect() as connection:
            # No transaction stays open while the lock is held: one of minutes keeps the database from cleaning up.
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            mine = (await connection.execute(_WAIT if wait else _TRY, parameters)).scalar_one()
            if mine is False:
                yield False
                return
            try:
                yield True
            finally:
                await connection.execute(_UNLOCK, parameters)
