"""The books on a real PostgreSQL: who waits for whom, what is undone, and that nobody waits in a circle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.dev.platform import Platform
from services.sync.app import MIGRATIONS, SOURCE
from services.sync.domain.detection import GONE
from services.sync.domain.ports import Sight, Wanted
from services.sync.handlers.looks import Looker, Source
from services.sync.store import references as references_module
from services.sync.store.registers import PostgresRegister
from services.sync.store.signatures import Seal
from services.sync.store.tables import SCHEMA
from services.sync.store.transactions import PostgresBooks
from services.sync.store.views import PostgresViews
from shared.crypto.signing import SigningKey
from shared.database import engine_for, migrate, sessions_for
from shared.errors import Conflict
from shared.events.catalog import KvSource, ReferenceState, SourceRecord
from shared.events.changes import Detection
from shared.outbox.commits import CommitLog
from tests.fakes.kv_source import FakeSource
from tests.platform_fixtures import Database
from tests.waiting import until


@dataclass(slots=True)
class Bench:
    engine: AsyncEngine
    books: PostgresBooks
    register: PostgresRegister
    views: PostgresViews
    source: SourceRecord
    vault: FakeSource

    def looker(self, at_once: int = 8) -> Looker:
        return Looker(self.books, asyncio.Semaphore(at_once))

    async def look(self, path: str, by: Detection = Detection.FEED) -> None:
        await self.looker().look(Source(self.source, self.vault), path, by)

    async def outbox(self) -> list[tuple[int, str, dict[str, object]]]:
        query = text("SELECT seq, topic, payload FROM outbox ORDER BY seq, position")
        async with self.engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [(row.seq, row.topic, orjson.loads(row.payload)) for row in rows]


@pytest_asyncio.fixture(loop_scope="session")
async def bench(platform: Platform, database: Database) -> AsyncIterator[Bench]:
    """The books of one source, on a database of this test's own."""
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {database.owner}", database=database.name)
    url = database.dsn.replace("postgresql://", "postgresql+asyncpg://")
    engine = engine_for(url, schema=SCHEMA, pool=20)  # type: ignore[arg-type]
    await migrate(engine, scripts=MIGRATIONS, schema=SCHEMA)
    sessions, commits, seal = sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE), Seal(SigningKey.generate())
    register = PostgresRegister(sessions, commits, seal)
    connected = await register.connect("main", KvSource(origin="http://vault:8200"))
    books, views = PostgresBooks(engine, sessions, commits, seal), PostgresViews(sessions, seal)
    yield Bench(engine, books, register, views, connected.record, FakeSource())
    await engine.dispose()


async def test_a_path_is_held_by_one_look_at_a_time_and_others_are_not_held_up(bench: Bench) -> None:
    order: list[str] = []
    release = asyncio.Event()

    async def hold(path: str, name: str, *, wait: bool) -> None:
        async with bench.books.at(bench.source.id, path):
            order.append(name)
            if wait:
                await release.wait()

    first = asyncio.create_task(hold("db", "first", wait=True))
    await until(lambda: order == ["first"])
    second = asyncio.create_task(hold("db", "second", wait=False))
    await hold("other", "other", wait=False)
    await until_blocked(bench, 1)
    assert order == ["first", "other"]
    release.set()
    await asyncio.gather(first, second)
    assert order == ["first", "other", "second"]


async def until_blocked(bench: Bench, number: int) -> None:
    """Wait until so many sessions wait for a lock: a fact of the database, not a guess by time."""
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    async def blocked() -> bool:
        async with bench.engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one()) >= number

    await until(blocked)


async def test_the_later_of_two_looks_reads_after_the_earlier_has_committed(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look("db")
    bench.vault.gate = asyncio.Event()
    bench.vault.reads.clear()
    first = asyncio.create_task(bench.look("db"))
    await until(lambda: bench.vault.reads == ["db"])
    await bench.vault.put("db", {})
    second = asyncio.create_task(bench.look("db"))
    await until_blocked(bench, 1)
    assert bench.vault.reads == ["db"], "the second look must not read while the first holds the path"
    bench.vault.gate.set()
    await asyncio.gather(first, second)
    (item,) = await bench.views.references(Wanted(), after="", limit=10)
    assert item.version == "2"


async def test_a_look_that_fails_leaves_nothing_and_no_hole(bench: Bench) -> None:
    await bench.vault.put("db", {})

    async def fail() -> None:
        async with bench.books.at(bench.source.id, "db") as work:
            assert work is not None
            await work.begin(Detection.FEED)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    await bench.look("db")
    assert [seq for seq, _, _ in await bench.outbox()] == [1, 2, 2]


async def test_a_source_is_not_deleted_under_a_look_and_not_looked_at_after(bench: Bench) -> None:
    await bench.vault.put("db", {})
    bench.vault.gate = asyncio.Event()
    look = asyncio.create_task(bench.look("db"))
    await until(lambda: bench.vault.reads == ["db"])
    leaving = asyncio.create_task(bench.register.disconnect(bench.source.id))
    await until_blocked(bench, 1)
    bench.vault.gate.set()
    await asyncio.gather(look, leaving)
    await bench.vault.put("late", {})
    await bench.look("late")
    said = [(seq, body.get("path"), body.get("state"), body.get("deleted")) for seq, _, body in await bench.outbox()]
    assert ("db", "active") in {(path, state) for _, path, state, _ in said}
    assert said[-3:-1] == [(3, None, None, True), (3, "db", "removed", True)]
    assert not any(path == "late" for _, path, _, _ in said)


async def test_no_more_is_read_for_successors_than_shows_that_it_is_too_much(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references_module, "MOST", 2)
    since = datetime(2000, 1, 1, tzinfo=UTC)
    for number in range(8):
        await bench.vault.put(f"{number}/db", {})
        await bench.look(f"{number}/db")
    for number in range(4):
        await bench.vault.forget(f"{number}/db")
        await bench.look(f"{number}/db")
    async with bench.books.at(bench.source.id, "db") as work:
        assert work is not None
        assert len(await work.appeared(since=since)) == 3
        assert len(await work.vanished(since=since)) == 3


async def test_one_name_is_given_once_however_many_want_it_together(bench: Bench) -> None:
    bench.vault.keys_visible = True
    paths = ["a", "a/b", "a/b/c"]
    for path, key in zip(paths, ("b/c/d", "c/d", "d"), strict=True):
        await bench.vault.put(path, {key: ""})
    await asyncio.gather(*(bench.look(path) for path in paths))
    names = {item.name for item in await bench.views.references(Wanted(), after="", limit=10)}
    assert names == {"a/b/c/d", "main/a/b/c/d", "main/a/b/c/d (2)"}


async def test_of_two_that_connect_one_name_one_wins(bench: Bench) -> None:
    async def connect(prefix: str) -> bool:
        with suppress(Conflict):
            await bench.register.connect("wanted", KvSource(origin="http://vault:8200", prefix=prefix))
            return True
        return False

    assert sorted(await asyncio.gather(*(connect(str(number)) for number in range(5)))) == [False] * 4 + [True]


async def test_only_a_change_of_sight_is_a_commit(bench: Bench) -> None:
    for reachable in (True, False, False, True):
        sight = Sight(detected_by=Detection.SWEEP, reachable=reachable, why="" if reachable else "sealed")
        await bench.books.note_sight(bench.source.id, sight)
    told = [body["reachable"] for _, _, body in await bench.outbox()]
    assert told == [True, False, True]


async def test_a_survey_is_one_replicas_and_its_lock_ends_with_it(bench: Bench) -> None:
    async with bench.books.surveying(bench.source.id, wait=False) as mine:
        assert mine
        async with bench.books.surveying(bench.source.id, wait=False) as theirs:
            assert not theirs
    async with bench.books.surveying(bench.source.id, wait=True) as mine:
        assert mine


async def test_many_looks_edits_and_sights_together_never_wait_in_a_circle(bench: Bench) -> None:
    """Random work on few paths; renames make looks touch each other's rows."""
    chance = random.Random(7)  # noqa: S311 - a repeatable mess
    paths = [f"team/db-{number}" for number in range(6)]
    for path in paths:
        await bench.vault.put(path, {})

    async def mess() -> None:
        for _ in range(25):
            path = chance.choice(paths)
            known = path in bench.vault.secrets
            match chance.choice(["put", "put", "forget", "delete"]):
                case "put":
                    await bench.vault.put(path, {})
                case "forget" if known:
                    await bench.vault.forget(path)
                case "delete" if known:
                    await bench.vault.delete(path)
            await bench.look(path)
            reachable = chance.random() < 0.5
            await bench.books.note_sight(bench.source.id, Sight(detected_by=Detection.SWEEP, reachable=reachable))

    async with asyncio.timeout(60):
        await asyncio.gather(*(mess() for _ in range(6)))
        for path in paths:
            await bench.look(path)
    await check_books(bench, paths)


async def check_books(bench: Bench, paths: list[str]) -> None:
    """What is known is what is in the vault, and what was said is dense, in order and complete."""
    known = await bench.books.snapshot(bench.source.id)
    for path in paths:
        (one,) = known[path]
        secret = bench.vault.secrets.get(path)
        if secret is None:
            assert one.record.state in GONE
        else:
            deleted = secret.versions[-1].deleted_at is not None
            state = ReferenceState.PENDING_DELETION if deleted else ReferenceState.ACTIVE
            # Gone, and back only as something that was deleted: it stays gone until it can be read.
            assert one.record.state is state or (deleted and one.record.state in GONE)
            assert one.record.version == str(len(secret.versions)) or one.record.state in GONE
    said = await bench.outbox()
    assert sorted({seq for seq, _, _ in said}) == list(range(1, max(seq for seq, _, _ in said) + 1))
    revisions: dict[object, int] = {}
    for _, topic, body in said:
        if topic.startswith("keyfob.catalog"):
            assert body["revision"] == revisions.get(body["id"], 0) + 1
            revisions[body["id"]] = int(str(body["revision"]))
