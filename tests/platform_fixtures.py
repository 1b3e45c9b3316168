"""Fixtures on real parts: one platform a test run, one database a test. `BROKER` chooses the broker."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from services.dev.platform import Platform


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh database and the role that owns it; `dsn` has the password in it."""

    name: str
    owner: str
    dsn: str = field(repr=False)


@pytest.fixture
def state_directory() -> Iterator[Path]:
    """A short-lived state directory outside pytest's own, which other test runs of the same user may close to others.

    PostgreSQL, when root starts it, runs as another user and must be able to reach its data.
    """
    directory = Path(tempfile.mkdtemp(prefix="keyfob-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform() -> AsyncIterator[Platform]:
    """PostgreSQL, broker and OpenBao, started once a test run and shared: leave no assumptions, use fresh names."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-"))
    try:
        async with Platform(directory=directory, durable=False) as running:
            yield running
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="session")
async def database(platform: Platform) -> AsyncIterator[Database]:
    """An empty database of this test's own, dropped after it."""
    name = f"test_{secrets.token_hex(6)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    yield Database(name=name, owner=name, dsn=platform.postgres.dsn(name, name))
    await platform.postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await platform.postgres.execute(f'DROP ROLE "{name}"')
