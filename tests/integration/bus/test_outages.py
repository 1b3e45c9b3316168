"""What a real PostgreSQL refuses for a while is an outage; what it will never take is not."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from shared.bus.outages import is_outage
from shared.database import engine_for
from tests.platform_fixtures import Database


@pytest.mark.parametrize(
    ("before", "statement", "outage"),
    [
        ("SET TRANSACTION READ ONLY", "CREATE TABLE written (n bigint)", True),
        ("SET LOCAL statement_timeout = '10ms'", "SELECT pg_sleep(10)", True),
        ("SELECT 1", "SELECT pg_terminate_backend(pg_backend_pid())", True),
        ("SELECT 1", "SELECT * FROM jsonb_to_recordset('[{\"n\": 9223372036854775808}]') AS said(n bigint)", False),
        ("SELECT 1", "SELECT * FROM nowhere", False),
    ],
    ids=["read-only", "too slow", "terminated", "out of range", "no such table"],
)
async def test_a_refusal_of_the_database(database: Database, before: str, statement: str, *, outage: bool) -> None:
    engine = engine_for(make_url(database.dsn).set(drivername="postgresql+asyncpg"), schema="public")
    try:
        async with engine.connect() as connection:
            await connection.execute(text(before))
            with pytest.raises(DBAPIError) as refused:
                # Not by text(): its colons would be parameters.
                await connection.exec_driver_sql(statement)
            assert is_outage(refused.value) == outage
    finally:
        await engine.dispose()
