"""sync in a process of its own: killed at any moment, or with its neighbours gone, it loses and doubles nothing."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest_asyncio

from services.dev.platform import Platform, Process
from shared import topics
from shared.bus.cloudevents import decode
from shared.events.catalog import ReferenceRecord
from shared.events.changes import VaultChange
from tests.integration.sync.conftest import SOURCE, SyncUnderTest, fresh, installed
from tests.waiting import until

KILLS = 4


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def alone(platform: Platform) -> AsyncIterator[SyncUnderTest]:
    """All that sync needs, with nobody else in it."""
    async with installed(platform) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def process(alone: SyncUnderTest, tmp_path: Path) -> AsyncIterator[Process]:
    """The service, started and ready."""
    log = tmp_path / "sync.log"
    running = Process("sync", (sys.executable, "-m", "services", "serve", "sync"), env=alone.environment(), log=log)
    running.start()
    await until_ready(alone)
    await alone.call("POST", "/v1/sources", {"name": SOURCE, "place": {"origin": alone.vault.url}})
    yield running
    await running.stop()


async def until_ready(alone: SyncUnderTest) -> None:
    async def ready() -> bool:
        with suppress(httpx2.TransportError):
            return (await alone.http.get("/readyz")).status_code == 200
        return False

    await until(ready, within=40, every=0.1)


async def test_killed_at_any_moment_it_loses_and_doubles_nothing(alone: SyncUnderTest, process: Process) -> None:
    paths = [fresh("killed") for _ in range(8)]
    for path in paths:
        await alone.vault.put(path, {"dsn": "0"})
    for round_ in range(KILLS):
        writing = asyncio.gather(*(alone.vault.put(path, {"dsn": str(round_)}) for path in paths))
        await asyncio.sleep(random.uniform(0, 0.03))  # noqa: S311 - any moment
        process.kill()
        await writing
        await until(lambda: process.returncode is not None, within=5)
        process.start()
        await until_ready(alone)
    for path in paths:
        await alone.vault.put(path, {"dsn": "last"})
    last = str(KILLS + 2)

    async def told() -> list[VaultChange]:
        return [decode(message, VaultChange) for message in await alone.messages(topics.VAULT_CHANGES)]

    async def complete() -> bool:
        return len([one for one in await told() if one.version == last]) == len(paths)

    await until(complete, within=20)
    records = [record for record, _ in await alone.records(ReferenceRecord)]
    for path in paths:
        mine = [record for record in records if record.path == path]
        assert len({record.id for record in mine}) == 1
        assert [record.revision for record in mine] == list(range(1, len(mine) + 1))
        versions = [int(one.version) for one in await told() if one.reference_id == mine[0].id]
        assert versions == sorted(set(versions)), "each version at most once, in order"
    numbers = {int(one.header("ce_commitseq") or 0) for one in await alone.messages(topics.CATALOG)}
    assert numbers == set(range(1, max(numbers) + 1))


async def test_a_write_that_nobody_heard_is_found_when_it_comes_back(alone: SyncUnderTest, process: Process) -> None:
    path = fresh("unheard")
    await alone.vault.put(path, {"dsn": "x"})
    await alone.until_changed(path, "discovered")
    process.kill()
    await until(lambda: process.returncode is not None, within=5)
    await alone.vault.put(path, {"dsn": "y"})
    process.start()
    await until_ready(alone)
    (_, rotated) = await alone.until_changed(path, "discovered", "rotated")
    assert rotated.detected_by.value == "sweep"


async def test_while_the_broker_is_away_the_vault_is_not_held_up_and_nothing_is_lost(
    alone: SyncUnderTest, process: Process
) -> None:
    path = fresh("patient")
    await alone.vault.put(path, {"dsn": "x"})
    await alone.until_changed(path, "discovered")
    await alone.broker.stop()
    try:
        began = time.monotonic()
        for number in range(20):
            await alone.vault.put(path, {"dsn": str(number)})
        # Generous for a busy machine; a vault that waited for our broker would take tens of seconds.
        assert time.monotonic() - began < 5

        async def known() -> bool:
            item = await alone.reference(path)
            return item is not None and item["version"] == "21"

        await until(known, within=10)
    finally:
        await alone.broker.start()

    async def published() -> bool:
        return [change.version for change in await alone.changes(path)][-1:] == ["21"]

    await until(published, within=30)
    versions = [int(change.version) for change in await alone.changes(path)]
    assert versions == sorted(set(versions))
