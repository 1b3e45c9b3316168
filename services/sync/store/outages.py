"""Transactions whose troubles are errors of our own, without the statement, its parameters or the address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Sessions
from shared.errors import Unavailable


@contextmanager
def own_errors() -> Iterator[None]:
    """Turn the database's errors into `Unavailable`; nothing was committed, or the outcome is unknown."""
    try:
        yield
    except DBAPIError as error:
        # The driver's own class says what it was; its words may quote data.
        raise Unavailable(f"the database failed ({type(error.orig or error).__name__})") from None
    except (SQLAlchemyError, OSError) as error:
        raise Unavailable(f"the database failed ({type(error).__name__})") from None


@asynccontextmanager
async def transaction(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    """One transaction: committed when the block ends, undone if it fails. `Unavailable` without a database."""
    with own_errors():
        async with sessions() as session, session.begin():
            yield session
