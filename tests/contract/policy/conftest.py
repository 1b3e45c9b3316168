"""The ledger's two faces: in memory and on PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from services.dev.platform import Platform
from services.policy.app import MIGRATIONS, SCHEMA, SOURCE
from services.policy.domain.ports import Ledger
from services.policy.ledger import PgLedger
from services.policy.signing import PolicyKey
from shared.crypto.signing import SigningKey
from shared.database import engine_for, migrate, sessions_for
from shared.outbox.commits import CommitLog
from tests.fakes.policy_ledger import FakeLedger

_EMPTY = """
TRUNCATE entities, links, enrolments, outbox;
UPDATE commit_counter SET seq = 0;
UPDATE standing SET digest = repeat('0', 64), tick_revision = 0, ticked_at = NULL;
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(platform: Platform) -> AsyncIterator[AsyncEngine]:
    """One migrated database for all contract tests of policy."""
    name = f"ledger_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    url = make_url(platform.postgres.dsn(name, name)).set(drivername="postgresql+asyncpg")
    made = engine_for(url, schema=SCHEMA, pool=5)
    await migrate(made, scripts=MIGRATIONS, schema=SCHEMA)
    yield made
    await made.dispose()


@pytest_asyncio.fixture(params=["postgres", "memory"], loop_scope="session")
async def ledger(request: pytest.FixtureRequest, engine: AsyncEngine) -> Ledger:
    """An empty ledger."""
    if request.param == "memory":
        return FakeLedger()
    async with engine.begin() as connection:
        for statement in filter(None, map(str.strip, _EMPTY.split(";"))):
            await connection.exec_driver_sql(statement)
    return PgLedger(sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE), PolicyKey(SigningKey.generate()))
