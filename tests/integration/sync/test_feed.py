"""From a write in the vault, through its audit device, to the topics: with a token that can't read any value."""

from __future__ import annotations

from asyncio import to_thread

import hvac
import pytest

from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.events.changes import Detection
from tests.integration.sync.conftest import SOURCE, SyncUnderTest, fresh

SECRET = "postgresql://alice:hunter2@db/hospital"


async def test_the_token_of_sync_can_not_read_any_value(sync: SyncUnderTest) -> None:
    path = fresh("denied")
    await sync.vault.put(path, {"dsn": SECRET})
    ours = hvac.Client(sync.vault.url, token=sync.token).secrets.kv.v2
    metadata = await to_thread(ours.read_secret_metadata, path)
    assert metadata["data"]["current_version"] == 1
    with pytest.raises(hvac.exceptions.Forbidden):
        await to_thread(ours.read_secret_version, path, raise_on_deleted_version=False)


async def test_a_write_is_discovered_and_a_second_one_is_a_rotation(sync: SyncUnderTest) -> None:
    path = f"hospital-a/{fresh('db')}"
    await sync.vault.put(path, {"dsn": SECRET})
    await sync.until_changed(path, "discovered")
    await sync.vault.put(path, {"dsn": SECRET})
    discovered, rotated = await sync.until_changed(path, "discovered", "rotated")
    assert (discovered.version, rotated.previous_version, rotated.version) == ("1", "1", "2")
    assert {discovered.detected_by, rotated.detected_by} == {Detection.FEED}
    assert rotated.changed_at <= rotated.detected_at
    latest = [record for record, _ in await sync.records(ReferenceRecord) if record.path == path][-1]
    assert (latest.version, latest.seq, latest.revision) == ("2", rotated.seq, 2)


async def test_delete_undelete_and_destroy_are_states(sync: SyncUnderTest, admin: hvac.Client) -> None:
    path, kv = fresh("states"), admin.secrets.kv.v2
    await sync.vault.put(path, {"dsn": SECRET})
    await sync.until_changed(path, "discovered")
    await sync.vault.delete(path)
    kinds = ["discovered", "state-changed"]
    assert (await sync.until_changed(path, *kinds))[-1].state is ReferenceState.PENDING_DELETION
    await to_thread(kv.undelete_secret_versions, path, [1])
    kinds.append("state-changed")
    assert (await sync.until_changed(path, *kinds))[-1].state is ReferenceState.ACTIVE
    await sync.vault.destroy(path, [1])
    kinds.append("state-changed")
    assert (await sync.until_changed(path, *kinds))[-1].state is ReferenceState.REMOVED


async def test_one_trace_and_no_value_from_the_webhook_to_the_topic(sync: SyncUnderTest) -> None:
    path = fresh("trace")
    await sync.vault.put(path, {"dsn": SECRET})
    (change,) = await sync.until_changed(path, "discovered")
    everything = await sync.messages("keyfob.vault-changes.v1") + await sync.messages("keyfob.catalog.v1")
    mine = [one for one in everything if one.key == change.reference_id]
    assert len({one.header("traceparent") for one in mine}) == 1
    assert mine[0].header("traceparent")
    assert all(b"hunter2" not in one.value for one in everything)


async def test_the_source_shows_where_it_is_and_how_it_is_covered(sync: SyncUnderTest) -> None:
    items = (await sync.call("GET", "/v1/coverage"))["items"]
    (mine,) = [item for item in items if item["source"] == SOURCE]
    assert mine["reachable"]
    assert mine["keys_visible"] in {False, None}
