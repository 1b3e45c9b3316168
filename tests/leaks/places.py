"""Where the run looks: everything that this machine keeps of it, and what any client was answered."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.dev.demo.search import Place, topics
from services.dev.platform import Postgres
from services.dev.platform.postgres import program
from services.dev.platform.processes import Process, plain_environment, run_to_end
from services.dev.stack import Stack

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_DUMP_S = 60.0
_LARGEST = 64 * 1024 * 1024
_ALREADY_SEARCHED = "keyfob-leaks-"


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that was looked at, of one of the kinds of places."""

    kind: str
    name: str
    content: bytes = field(repr=False)


async def dump(postgres: Postgres, directory: Path) -> bytes:
    """All databases as SQL, by PostgreSQL's own pg_dumpall; `directory` is not searched itself."""
    target = directory / "dump.sql"
    target.unlink(missing_ok=True)
    arguments = ("-h", postgres.host, "-p", str(postgres.port), "-U", "postgres", "-w", "--inserts")
    password = unquote(urlsplit(postgres.dsn()).password or "")
    environment = plain_environment(PGPASSWORD=password)
    await run_to_end(
        Process("pg_dumpall", (str(program("pg_dumpall")), *arguments), env=environment, log=target), within_s=_DUMP_S
    )
    content = target.read_bytes()
    target.unlink()
    return content


async def kept_by_servers(stack: Stack) -> AsyncIterator[Sight]:
    """Every schema of every database, every record of every topic."""
    content = await dump(stack.platform.postgres, stack.layout.own_data[0])
    assert b"INSERT INTO keyfob_audit." in content, "the dump has the tables"
    assert b"INSERT INTO keyfob_resolver." in content, "the dump has the tables"
    yield Sight("database", "dump of all databases", content)
    found = 0
    async for place in topics(stack.platform.broker.bootstrap):
        found += bool(place.content)
        yield Sight("topic", place.name, place.content)
    assert found >= len(("catalog", "vault-changes", "policy", "access", "receipts", "notices", "audit"))


def state_files(stack: Stack) -> Iterator[Sight]:
    """Every file below the state directory, but for what PostgreSQL and OpenBao keep for themselves."""
    without = stack.layout.own_data
    for place in walk(stack.layout.root, without=without):
        path = Path(place.name)
        match path.relative_to(stack.layout.root).parts:
            case ("logs", *_):
                kind = "log"
            case ("traces.jsonl",):
                kind = "trace"
            case (name,) if name.startswith("core"):
                kind = "core file"
            case _:
                kind = "state"
        yield Sight(kind, place.name, place.content)


def temporary_files(state: Path, since: float) -> Iterator[Sight]:
    """All of our own temporary directory, all memory files, and what is new on the first levels of the usual places.

    `state`, which may lie in one of them, is searched for itself.
    """
    for place in walk(Path(tempfile.gettempdir()), without=[state]):
        yield Sight("temporary file", place.name, place.content)
    for place in walk(SHARED_MEMORY, since=since):
        yield Sight("memory file", place.name, place.content)
    for root in (Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - looked at, not written to
        for place in walk(root, since=since, depth=2):
            if _ALREADY_SEARCHED not in place.name:
                yield Sight("temporary file", place.name, place.content)


def walk(root: Path, *, without: Collection[Path] = (), since: float = 0.0, depth: int = 64) -> Iterator[Place]:
    """Regular files below `root` that changed after `since`; what vanishes meanwhile is no more to be found."""
    for path in _children(root):
        with suppress(FileNotFoundError, PermissionError):
            about = path.lstat()
            if stat.S_ISDIR(about.st_mode) and path not in without and depth > 1:
                yield from walk(path, without=without, since=since, depth=depth - 1)
            elif stat.S_ISREG(about.st_mode) and about.st_mtime >= since:
                with path.open("rb") as file:
                    # Some files are made at their full size, megabytes of zeros each: nothing hides in those.
                    yield Place(str(path), file.read(_LARGEST).rstrip(b"\0"))


def _children(directory: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(directory.iterdir())
    return []
