"""The boundary to the database: reads, and numbered commits that say what they did.

Commits are serial across all replicas, by the lock of the counter (`shared.outbox`): whoever is in one sees which key
is current, and nobody changes that before it ends. So no value is ever sealed under a key that a rotation just left.
Bringing rows to the new key takes no number, and compares each old wrap instead.

Every trouble with the database is `Unavailable`, without the statement, its parameters or the address.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.resolver.custody.store import CustodyStore
from shared.database import Sessions
from shared.errors import Unavailable
from shared.events.custody import KeyChange, ValueChange
from shared.outbox.commits import Commit, CommitLog

WITHIN_S: Final = 5.0
"""For one transaction: a database that hangs must not collect requests."""

# Of the session and not of a transaction: whoever dies loses it at once, whatever he was doing.
_TRY: Final = text("SELECT pg_try_advisory_lock(hashtextextended('keyfob-resolver-rewrap', 0))")
_UNLOCK: Final = text("SELECT pg_advisory_unlock(hashtextextended('keyfob-resolver-rewrap', 0))")


class DatabaseAway(Unavailable):
    """Raised when the database of local values did not do what it was asked; asking again may help."""

    kind = "custody-unavailable"
    title = "Local values can't be reached now"


@contextmanager
def own_errors() -> Iterator[None]:
    """Turn the database's errors into `DatabaseAway`; nothing was committed, or the outcome is unknown."""
    try:
        yield
    except DBAPIError as error:
        # The driver's own class says what it was; its words may quote data.
        raise DatabaseAway(f"The database failed ({type(error.orig or error).__name__}).") from None
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise DatabaseAway(f"The database failed ({type(error).__name__}).") from None


@dataclass(slots=True)
class Work:
    """One commit under way: what it sees and writes, and what it says about it."""

    store: CustodyStore
    commit: Commit
    said: bool = False

    @property
    def seq(self) -> int:
        """The number of this commit."""
        return self.commit.seq

    @property
    def at(self) -> datetime:
        """When it happens, UTC."""
        return self.commit.at

    def say(self, change: KeyChange | ValueChange) -> None:
        """Publish `change` with this commit."""
        self.said = True
        self.commit.event(change, key=_key_of(change), event_id=change.id)


def change_id() -> str:
    """A new id for an event."""
    return f"change/{uuid.uuid4().hex}"


def _key_of(change: KeyChange | ValueChange) -> str:
    return change.value_id if isinstance(change, ValueChange) else f"key/{change.key_id}"


@dataclass(frozen=True, slots=True)
class Books:
    """Transactions on the resolver's schema."""

    engine: AsyncEngine
    sessions: Sessions
    commits: CommitLog

    @asynccontextmanager
    async def open(self) -> AsyncIterator[CustodyStore]:
        """A transaction without a number: for reading, and for what nobody has to hear of."""
        with own_errors():
            async with asyncio.timeout(WITHIN_S), self.sessions() as session, session.begin():
                yield CustodyStore(session)

    @asynccontextmanager
    async def picture(self) -> AsyncIterator[CustodyStore]:
        """A transaction for reading, all of whose statements see the same moment."""
        async with self.open() as store:
            await store.session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield store

    @asynccontextmanager
    async def commit(self) -> AsyncIterator[Work]:
        """A numbered commit; undone if its block fails or says nothing."""
        with own_errors():
            async with asyncio.timeout(WITHIN_S), self.sessions() as session:
                work = Work(CustodyStore(session), await self.commits.begin(session))
                yield work
                if work.said:
                    await work.commit.flush()
                    await session.commit()
                else:
                    # The number goes back with it: one that left nothing in the outbox would stop the relay.
                    await session.rollback()

    @asynccontextmanager
    async def rewrapping(self) -> AsyncIterator[bool]:
        """Be the only one who rewraps while the block runs; False if another replica is."""
        with own_errors():
            async with self.engine.connect() as connection:
                # No transaction stays open while the lock is held: one of minutes keeps the database from cleaning up.
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                if not (await connection.execute(_TRY)).scalar_one():
                    yield False
                    return
                try:
                    yield True
                finally:
                    await connection.execute(_UNLOCK)
