"""Manual syncs: progress, result, and that none is forgotten."""

from __future__ import annotations

from services.sync.store.runs import PostgresRuns
from services.sync.store.tables import SCHEMA
from shared.database import engine_for, sessions_for
from shared.events.changes import Detection
from tests.integration.sync.conftest import SOURCE, SyncUnderTest, fresh
from tests.waiting import until


async def test_a_manual_sync_says_what_it_saw_and_what_changed(sync: SyncUnderTest) -> None:
    await sync.vault.put(fresh("seen"), {"dsn": "x"})
    run = await sync.call("POST", "/v1/syncs", {"source": SOURCE}, groups=("keyfob-operators",))
    assert run["state"] == "running"
    done = await sync.call("GET", f"/v1/syncs/{run['id']}?wait_s=20")
    assert (done["state"], done["asked_by"]) == ("done", "ada")
    assert done["seen"] > 0
    assert [part["source"] for part in done["sources"]] == [SOURCE]
    assert done["ended_at"]


async def test_a_manual_sync_of_all_fails_where_one_source_does_and_says_which(sync: SyncUnderTest) -> None:
    folder = fresh("part")
    await sync.vault.put(f"{folder}/db", {"dsn": "x"})
    source = await sync.connect("revoked", prefix=folder)
    await until(lambda: sync.count("revoked", 1), within=10)
    sync.write_credential("revoked", origin=sync.vault.url, token="s.revoked")
    try:
        run = await sync.call("POST", "/v1/syncs", {})
        ended = await sync.call("GET", f"/v1/syncs/{run['id']}?wait_s=20")
        parts = {part["source"]: part for part in ended["sources"]}
        assert ended["state"] == "failed"
        assert (parts[SOURCE]["state"], parts["revoked"]["state"]) == ("done", "failed")
        assert "may not list" in parts["revoked"]["why"]
        states = {item["state"] for item in (await sync.call("GET", "/v1/references?source=revoked"))["items"]}
        assert states == {"source-unreachable"}
        (item,) = [one for one in (await sync.call("GET", "/v1/sources"))["items"] if one["name"] == "revoked"]
        assert item["reachable"] is False
        # Nothing of it was said about the reference itself: it may well be readable.
        assert {change.kind.value for change in await sync.changes(f"{folder}/db")} == {"discovered"}
    finally:
        await sync.call("DELETE", f"/v1/sources/{source['id']}")


async def test_a_manual_sync_finds_what_no_feed_told(sync: SyncUnderTest) -> None:
    folder = fresh("quiet")
    await sync.vault.put(f"{folder}/db", {"dsn": "x"})
    # The feed is the main source's: this one hears nothing.
    source = await sync.connect("quiet", prefix=folder)
    try:
        await sync.vault.put(f"{folder}/db", {"dsn": "y"})
        run = await sync.call("POST", "/v1/syncs", {"source": "quiet"})
        await sync.call("GET", f"/v1/syncs/{run['id']}?wait_s=20")
        (item,) = (await sync.call("GET", "/v1/references?source=quiet"))["items"]
        assert item["version"] == "2"
        told = [one for one in await sync.changes(f"{folder}/db") if one.source_id == source["id"]]
        assert told[-1].detected_by in {Detection.MANUAL, Detection.SWEEP}
    finally:
        await sync.call("DELETE", f"/v1/sources/{source['id']}")


async def test_a_sync_whose_replica_died_is_taken_up_by_another(sync: SyncUnderTest) -> None:
    engine = engine_for(sync.settings.sync.database(), schema=SCHEMA, pool=2)
    # As a replica leaves it that dies right after it has noted the run.
    run = await PostgresRuns(engine, sessions_for(engine)).open([SOURCE], asked_by="ada")
    await engine.dispose()
    done = await sync.call("GET", f"/v1/syncs/{run.id}?wait_s=20")
    assert done["state"] == "done"


async def test_a_sync_of_nothing_known_is_not_available(sync: SyncUnderTest) -> None:
    await sync.call("POST", "/v1/syncs", {"source": "nobody"}, expect=404)
    await sync.call("GET", "/v1/syncs/sync/none", expect=404)
