"""The embedded PostgreSQL: real passwords, real restarts, nothing in its log that shouldn't be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import asyncpg
import psutil
import pytest

from services.dev.platform import Platform, Postgres, Process, plain_environment
from tests.platform_fixtures import Database
from tests.waiting import until


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_role_reaches_its_own_database(database: Database) -> None:
    assert await fetch(database.dsn, "SELECT current_user || '@' || current_database()") == (
        f"{database.owner}@{database.name}"
    )


async def test_a_wrong_password_is_refused(platform: Platform, database: Database) -> None:
    wrong = f"postgresql://{database.owner}:guess@127.0.0.1:{platform.postgres.port}/{database.name}"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch(wrong, "SELECT 1")


async def test_a_role_does_not_reach_the_database_of_another(platform: Platform, database: Database) -> None:
    await platform.postgres.create_database("elsewhere", owner="other", password="pw")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(platform.postgres.dsn("elsewhere", database.owner), "SELECT 1")


@pytest.mark.parametrize("password", ["it's", "a/b@c:d?e#f%g", 'say "x"', "back\\slash", "ünï"])
async def test_any_password_works_in_the_dsn(platform: Platform, database: Database, password: str) -> None:
    await platform.postgres.set_password(database.owner, password)
    assert await fetch(platform.postgres.dsn(database.name, database.owner), "SELECT 1") == 1


async def test_a_changed_password_cuts_nobody_until_told_so(platform: Platform, database: Database) -> None:
    connection = await asyncpg.connect(database.dsn)
    await platform.postgres.set_password(database.owner, "changed")
    assert await connection.fetchval("SELECT 1") == 1
    assert await platform.postgres.disconnect(database.owner) == 1
    await until(connection.is_closed)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch(database.dsn, "SELECT 1")


async def test_creating_a_database_again_keeps_its_data(platform: Platform, database: Database) -> None:
    await fetch(database.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    await platform.postgres.create_database(database.name, owner=database.owner, password="new")
    assert await fetch(platform.postgres.dsn(database.name, database.owner), "SELECT n FROM kept") == 7


async def test_a_failing_statement_leaves_no_password_in_the_log(platform: Platform) -> None:
    with pytest.raises(asyncpg.UndefinedObjectError):
        await platform.postgres.execute("ALTER ROLE nobody_here PASSWORD 'planted-password'")
    log = (platform.logs / "postgres.log").read_text()
    assert 'role "nobody_here" does not exist' in log
    assert "planted-password" not in log


async def test_there_is_room_for_many_connections(platform: Platform, database: Database) -> None:
    assert await fetch(database.dsn, "SELECT current_setting('max_connections')") == "300"


async def test_data_address_and_passwords_survive_restart_and_crash(state_directory: Path) -> None:
    postgres = Postgres(state_directory / "postgres")
    await postgres.start()
    await postgres.create_database("kept", owner="keeper", password="pw")
    dsn = postgres.dsn("kept", "keeper")
    await fetch(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    await postgres.stop()

    again = Postgres(state_directory / "postgres")
    await again.start()
    assert await fetch(dsn, "SELECT n FROM kept") == 7

    again.kill()
    await again.start()
    assert await fetch(dsn, "SELECT n FROM kept") == 7
    assert again.process is not None
    await again.stop()
    assert again.process.returncode == 0


async def test_a_crash_in_the_middle_of_creation_is_forgotten(state_directory: Path) -> None:
    half = state_directory / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    postgres = Postgres(state_directory / "postgres", durable=False)
    await postgres.start()
    await postgres.execute("SELECT 1")
    await postgres.stop()


async def test_the_lock_of_a_server_that_is_gone_does_not_stop_the_next(state_directory: Path) -> None:
    postgres = Postgres(state_directory / "postgres", durable=False)
    await postgres.start()
    postgres.kill()
    assert postgres.process is not None
    await postgres.process.wait(5)
    # Its number is by now that of another process of the same user: PostgreSQL itself would give up.
    user = "embedded_postgres" if os.geteuid() == 0 else None
    other = Process("other", ("sleep", "600"), env=plain_environment(), log=state_directory / "log", user=user)
    other.start()
    lock = state_directory / "postgres" / "data" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
    await until(lambda: psutil.Process(other.pid).name() == "sleep")
    await postgres.start()
    await postgres.stop()
    await other.stop()


async def test_only_its_owner_reads_the_administrators_password(platform: Platform) -> None:
    secret = platform.directory / "postgres" / "superuser"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert platform.postgres.process is not None
    assert secret.read_text() not in " ".join(psutil.Process(platform.postgres.process.pid).cmdline())
