"""Two replicas of sync on one database: nothing twice, nothing late, nothing forged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio
from sqlalchemy import text
from structlog.testing import capture_logs

from services.sync.app import Settings, build
from services.sync.store.tables import SCHEMA
from shared import topics
from shared.config import Mode
from shared.database import engine_for
from shared.egress import Egress, guarded_session
from shared.events.catalog import ReferenceRecord
from tests.fakes.loopback import free_port
from tests.integration.sync.conftest import SOURCE, SyncUnderTest, fresh, serving
from tests.waiting import until


@pytest_asyncio.fixture(loop_scope="session")
async def sweeping(sync: SyncUnderTest) -> AsyncIterator[None]:
    """A second replica, which sweeps all the time."""
    port = free_port()
    quick = {"port": port, "sweep_every_s": 0.2, "database_pool": 10, "looks": 4, "surveys": 2}
    settings = Settings(
        common=sync.settings.common, sync=sync.settings.sync.model_copy(update=quick), admin=sync.settings.admin
    )
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(guarded_session(mode=Mode.DEVELOPMENT))
        egress = await stack.enter_async_context(Egress(mode=Mode.DEVELOPMENT))
        service = build(settings, session, egress)
        await stack.enter_async_context(serving(service.app, port))
        await until(lambda: not service.readiness.reasons(), within=20)
        yield


async def test_a_sweep_finds_what_no_feed_told(sync: SyncUnderTest, sweeping: None) -> None:
    folder = fresh("swept")
    await sync.vault.put(f"{folder}/db", {"dsn": "x"})
    source = await sync.connect("swept", prefix=folder)
    try:
        await until(lambda: sync.count("swept", 1), within=10)
        await sync.vault.put(f"{folder}/db", {"dsn": "y"})
        await until(lambda: sync.version("swept", "2"), within=10)
    finally:
        await sync.call("DELETE", f"/v1/sources/{source['id']}")


async def test_feed_and_sweeps_together_tell_everything_once_and_in_order(sync: SyncUnderTest, sweeping: None) -> None:
    paths = [fresh("busy") for _ in range(4)]

    async def rotate(path: str) -> None:
        for number in range(10):
            await sync.vault.put(path, {"dsn": str(number)})

    await asyncio.gather(*(rotate(path) for path in paths))
    for path in paths:

        async def complete(path: str = path) -> bool:
            told = await sync.changes(path)
            return bool(told) and told[-1].version == "10"

        await until(complete, within=20)
        versions = [int(change.version) for change in await sync.changes(path)]
        assert versions == sorted(set(versions))
        records = [record for record, _ in await sync.records(ReferenceRecord) if record.path == path]
        assert [record.revision for record in records] == list(range(1, len(records) + 1))


async def test_commits_are_numbered_without_gaps(sync: SyncUnderTest) -> None:
    numbers = [int(one.header("ce_commitseq") or 0) for one in await sync.messages(topics.CATALOG)]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, numbers[-1] + 1))


async def test_a_row_that_somebody_else_wrote_is_never_signed(sync: SyncUnderTest) -> None:
    path, elsewhere = fresh("forged"), fresh("treasure")
    for one in (path, elsewhere):
        await sync.vault.put(one, {"dsn": "x"})
        await sync.until_changed(one, "discovered")
    engine = engine_for(sync.settings.sync.database(), schema=SCHEMA, pool=1)
    # The reference of one secret is made to point to the other, but nobody has the key.
    forge = text(
        "UPDATE known_references SET payload = convert_to(replace(convert_from(payload, 'UTF8'), :this, :that), 'UTF8')"
        " WHERE path = :path"
    )
    async with engine.begin() as connection:
        await connection.execute(forge, {"path": path, "this": path, "that": elsewhere})
    with capture_logs() as logs:
        await sync.vault.put(path, {"dsn": "y"})
        await until(lambda: [line for line in logs if line.get("kind") == "signature-invalid"], within=10)
    run = await sync.call("POST", "/v1/syncs", {"source": SOURCE})
    ended = await sync.call("GET", f"/v1/syncs/{run['id']}?wait_s=20")
    assert (ended["state"], ended["sources"][0]["why"][:7]) == ("failed", "1 paths")
    assert {record.version for record, _ in await sync.records(ReferenceRecord) if record.path == path} == {"1"}
    # Mended, it goes on where it was.
    async with engine.begin() as connection:
        await connection.execute(forge, {"path": path, "this": elsewhere, "that": path})
    await engine.dispose()
    await sync.vault.put(path, {"dsn": "z"})
    assert (await sync.until_changed(path, "discovered", "rotated"))[-1].version == "3"
