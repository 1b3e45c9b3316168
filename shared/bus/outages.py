"""Telling "something of ours is away" from "this message is bad": the first is waited out, the second is not."""

from __future__ import annotations

import asyncpg
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shared.errors import Unavailable

_AWAY: tuple[type[BaseException], ...] = (
    Unavailable,
    OSError,
    TimeoutError,
    KafkaError,
    PoolTimeout,
    InterfaceError,
    OperationalError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.TooManyConnectionsError,
)


def is_outage(error: BaseException) -> bool:
    """Whether the error says that a database, a broker or a network is away, rather than that the work is wrong."""
    return isinstance(error, _AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated)
