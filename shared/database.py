"""PostgreSQL by SQLAlchemy: one engine a service, the service's own schema first in the search path."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

Sessions = async_sessionmaker[AsyncSession]


def engine_for(url: URL, *, schema: str, pool: int = 10) -> AsyncEngine:
    """An engine whose statements run in `schema`. Statement parameters never reach an error's text."""
    return create_async_engine(
        url,
        pool_size=pool,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"server_settings": {"search_path": schema, "application_name": f"keyfob-{schema}"}},
    )


def sessions_for(engine: AsyncEngine) -> Sessions:
    """Sessions whose objects stay usable after commit; the boundary commits, a store never does."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def migrate(engine: AsyncEngine, *, scripts: Path, schema: str) -> None:
    """Bring `schema` up to the newest revision in `scripts`, once, however many replicas start together."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        config.attributes["connection"] = connection
        config.attributes["schema"] = schema
        command.upgrade(config, "head")

    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtext('keyfob-migrate-{schema}'))")
        await connection.run_sync(upgrade)
