"""Telling "something of ours is away" from "this message is bad": the first is waited out, the second is not."""

from __future__ import annotations

from typing import Final

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
)

_PASSING_CLASSES: Final = frozenset({"08", "40", "53", "57", "58"})
"""Connection, rollback (deadlocks), resources (disk, memory), intervention, system (PostgreSQL, appendix A)."""
_PASSING: Final = frozenset({"25006", "55P03"})
"""read_only_sql_transaction, as after a failover, and lock_not_available: the rest of their classes is our mistake."""


def is_outage(error: BaseException) -> bool:
    """Whether the error says that a database, a broker or a network is away, rather than that the work is wrong."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # What fails while a connection is made comes through SQLAlchemy as it is, not wrapped as what fails later.
    driver = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(error, _AWAY) or _is_passing(driver) or _says_closed(driver)


def _is_passing(driver: BaseException | None) -> bool:
    # By the code: SQLAlchemy gives most of what asyncpg raises one and the same class.
    sqlstate = getattr(driver, "sqlstate", None)
    return isinstance(sqlstate, str) and (sqlstate[:2] in _PASSING_CLASSES or sqlstate in _PASSING)


def _says_closed(driver: BaseException | None) -> bool:
    # asyncpg raises one class for a lost connection and for arguments that it can't send: the text tells them apart.
    is_interface = isinstance(driver, asyncpg.InterfaceError) or type(driver).__name__ == "InterfaceError"
    return is_interface and ("connection is closed" in str(driver) or "connection was closed" in str(driver))
