"""Telling "something of ours is away" from "this message is bad": the first is waited out, the second is not."""

from __future__ import annotations

import asyncpg
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import Unavailable

_AWAY: tuple[type[BaseException], ...] = (
    Unavailable,
    OSError,
    TimeoutError,
    KafkaError,
    PoolTimeout,
    OperationalError,
    # What fails while a connection is made comes through SQLAlchemy as it is, not wrapped as what fails later.
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.TooManyConnectionsError,
)


def is_outage(error: BaseException) -> bool:
    """Whether the error says that a database, a broker or a network is away, rather than that the work is wrong."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, _AWAY) or _says_closed(error)


def _says_closed(error: BaseException) -> bool:
    # asyncpg raises one class for a lost connection and for arguments that it can't send: the text tells them apart.
    driver = error.orig if isinstance(error, DBAPIError) else error
    is_interface = isinstance(driver, asyncpg.InterfaceError) or type(driver).__name__ == "InterfaceError"
    return is_interface and ("connection is closed" in str(driver) or "connection was closed" in str(driver))
