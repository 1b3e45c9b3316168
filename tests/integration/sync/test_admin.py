"""What administrators can do, see, and not do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.events.catalog import ReferenceRecord, ReferenceState, SourceRecord
from tests.fakes.loopback import free_port
from tests.integration.sync.conftest import SOURCE, SyncUnderTest, fresh
from tests.waiting import until


async def test_references_are_listed_by_name_page_by_page(sync: SyncUnderTest) -> None:
    folder = fresh("paged")
    for number in range(5):
        await sync.vault.put(f"{folder}/{number}", {"dsn": "x"})
        await sync.until_changed(f"{folder}/{number}", "discovered")
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await sync.call("GET", f"/v1/references?limit=2&name={folder.upper()}&after={after}")
        assert len(page["items"]) <= 2
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
    assert seen == [f"{folder}/{number}" for number in range(5)]
    assert {item["source"] for item in page["items"]} <= {SOURCE}


async def test_references_are_found_by_source_and_state(sync: SyncUnderTest) -> None:
    path = fresh("filtered")
    await sync.vault.put(path, {"dsn": "x"})
    await sync.until_changed(path, "discovered")
    await sync.vault.delete(path)
    await sync.until_changed(path, "discovered", "state-changed")

    async def names(query: str) -> set[str]:
        return {item["name"] for item in (await sync.call("GET", f"/v1/references?limit=500&{query}"))["items"]}

    assert path in await names("state=pending-deletion")
    assert path not in await names("state=active")
    assert path in await names(f"source={SOURCE}")
    assert await names("source=another") == set()


async def test_a_name_owner_and_description_that_people_gave_stay(sync: SyncUnderTest) -> None:
    path, name = fresh("edited"), fresh("Herz-Monitor")
    await sync.vault.put(path, {"dsn": "x"})
    await sync.until_changed(path, "discovered")
    item = await sync.reference(path)
    assert item is not None
    edited = await sync.call("PUT", f"/v1/references/{item['id']}", {"name": name, "owner": "Dr. Ada"})
    assert (edited["name"], edited["owner"], edited["entity_id"]) == (name, "Dr. Ada", item["id"])
    await sync.vault.put(path, {"dsn": "y"})
    await sync.until_changed(path, "discovered", "rotated")
    latest = [record for record, _ in await sync.records(ReferenceRecord) if record.path == path][-1]
    assert (latest.name, latest.owner, latest.version, latest.revision) == (name, "Dr. Ada", "2", 3)
    # The same again changes nothing.
    again = await sync.call("PUT", f"/v1/references/{item['id']}", {"name": name})
    assert again["seq"] == latest.seq


async def test_two_references_never_have_one_name(sync: SyncUnderTest) -> None:
    one, other = fresh("one"), fresh("other")
    for path in (one, other):
        await sync.vault.put(path, {"dsn": "x"})
        await sync.until_changed(path, "discovered")
    item = await sync.reference(other)
    assert item is not None
    problem = await sync.call("PUT", f"/v1/references/{item['id']}", {"name": one}, expect=409)
    assert problem["type"].endswith("/conflict")


async def test_connecting_the_same_source_again_changes_nothing(sync: SyncUnderTest) -> None:
    body = {"name": SOURCE, "place": {"provider": "kv2", "origin": sync.vault.url + "/", "mount": "/secret/"}}
    before = await sync.call("GET", "/v1/sources")
    connected = await sync.call("POST", "/v1/sources", body)
    assert connected["id"] == before["items"][0]["id"]
    body["place"]["prefix"] = "elsewhere"  # type: ignore[index]
    await sync.call("POST", "/v1/sources", body, expect=409)


async def test_what_can_not_be_worked_with_is_not_connected(sync: SyncUnderTest) -> None:
    async def connect(expect: int, name: str = "other", **place: Any) -> str:
        body = {"name": name, "place": {"origin": sync.vault.url} | place}
        return str((await sync.call("POST", "/v1/sources", body, expect=expect))["detail"])

    assert "other.json" in await connect(503)
    sync.write_credential("other", origin="http://127.0.0.1:1")
    assert "another origin" in await connect(503)
    sync.write_credential("other", origin=f"http://127.0.0.1:{free_port()}")
    assert "no connection" in await connect(503, origin=json.loads(sync.credential("other"))["origin"])
    sync.write_credential("other", origin=sync.vault.url, token="s.revoked")
    assert "may not list" in await connect(503)
    sync.write_credential("other", origin=sync.vault.url)
    await connect(503, mount="nothing-there")
    for name in ("", "../x", "a/b", "reference"):
        await connect(400, name)
    for origin in ("vault", "ftp://vault", "http://user:hunter2@vault:1", "http://vault/path"):
        assert "hunter2" not in await connect(400, origin=origin)
    await connect(400, provider="kv1")
    await connect(400, prefix="a/../b")
    assert [item["name"] for item in (await sync.call("GET", "/v1/sources"))["items"]] == [SOURCE]


async def test_disconnecting_a_source_ends_its_references_in_one_commit(sync: SyncUnderTest) -> None:
    folder = fresh("leaving")
    paths = [f"{folder}/{number}" for number in range(3)]
    for path in paths:
        await sync.vault.put(path, {"dsn": "x"})
    await sync.connect("leaving", prefix=folder)
    await until(lambda: sync.count("leaving", 3), within=10)
    (source,) = [item for item in (await sync.call("GET", "/v1/sources"))["items"] if item["name"] == "leaving"]
    receipt = await sync.call("DELETE", f"/v1/sources/{source['id']}")

    async def published() -> list[ReferenceRecord]:
        return [record for record, _ in await sync.records(ReferenceRecord) if record.seq == receipt["seq"]]

    ended = await until(published, within=10)
    assert {(record.path, record.state, record.deleted) for record in ended} == {
        (path, ReferenceState.REMOVED, True) for path in paths
    }
    (gone,) = [record for record, _ in await sync.records(SourceRecord) if record.seq == receipt["seq"]]
    assert gone.deleted
    told = [change for path in paths for change in await sync.changes(path) if change.seq == receipt["seq"]]
    assert len(told) == 3
    assert receipt["event_id"] in {change.id for change in told}
    await sync.call("DELETE", f"/v1/sources/{source['id']}", expect=404)
    assert await sync.count("leaving", 0)


async def test_the_name_of_a_disconnected_source_and_its_references_are_free_again(sync: SyncUnderTest) -> None:
    folder = fresh("again")
    await sync.vault.put(f"{folder}/db", {"dsn": "x"})
    await sync.until_changed(f"{folder}/db", "discovered")
    names = []
    for _ in range(2):
        source = await sync.connect("again", prefix=folder)
        await until(lambda: sync.count("again", 1), within=10)
        items = (await sync.call("GET", "/v1/references?source=again"))["items"]
        names.append(items[0]["name"])
        await sync.call("DELETE", f"/v1/sources/{source['id']}")
    # The path is the main source's reference already: the later source's name goes in front.
    assert names == [f"again/{folder}/db"] * 2


ROLES = [
    ("GET", "/v1/sources", None, {"keyfob-admins", "keyfob-operators", "keyfob-auditors"}),
    ("GET", "/v1/references", None, {"keyfob-admins", "keyfob-operators", "keyfob-auditors"}),
    ("GET", "/v1/coverage", None, {"keyfob-admins", "keyfob-operators", "keyfob-auditors"}),
    ("GET", "/v1/syncs/sync/none", None, {"keyfob-admins", "keyfob-operators", "keyfob-auditors"}),
    ("POST", "/v1/syncs", {"source": "none"}, {"keyfob-admins", "keyfob-operators"}),
    ("POST", "/v1/sources", {"name": "", "place": {"origin": "x"}}, {"keyfob-admins"}),
    ("DELETE", "/v1/sources/source/none", None, {"keyfob-admins"}),
    ("PUT", "/v1/references/reference/none", {}, {"keyfob-admins"}),
]


@pytest.mark.parametrize(("method", "path", "body", "allowed"), ROLES)
async def test_every_call_needs_its_role(
    sync: SyncUnderTest, method: str, path: str, body: Any, allowed: set[str]
) -> None:
    for group in ("keyfob-admins", "keyfob-operators", "keyfob-auditors", "nurses"):
        status = await sync.status(method, path, body, groups=(group,))
        assert (status != 403) is (group in allowed), (group, status)
    assert (await sync.http.request(method, path, json=body)).status_code == 401


BAD = [
    ("GET", "/v1/references?limit=0", None),
    ("GET", "/v1/references?limit=many", None),
    ("GET", "/v1/references?state=lost", None),
    ("GET", "/v1/references?after=%00", None),
    ("GET", "/v1/references?name=%00", None),
    ("GET", "/v1/references/%00", None),
    ("GET", "/v1/references/" + "x" * 5000, None),
    ("GET", "/v1/references/%ff%fe", None),
    ("GET", "/v1/syncs/%00", None),
    ("GET", "/v1/syncs/x?wait_s=31", None),
    ("GET", "/v1/syncs/x?wait_s=nan", None),
    ("DELETE", "/v1/sources/%00", None),
    ("POST", "/v1/syncs", b'{"source":"\\ud800"}'),
    ("POST", "/v1/syncs", b'{"source":"a\\u0000"}'),
    ("POST", "/v1/syncs", b'{"source":'),
    ("POST", "/v1/syncs", b"\xff\xfe"),
    ("POST", "/v1/syncs", b"[" * 60_000),
    ("POST", "/v1/syncs", b'{"source":"' + b"x" * 1_000_000 + b'"}'),
    ("POST", "/v1/sources", b'{"name":"x","place":{"origin":"http://v","mount":"\\ud800"}}'),
    ("POST", "/v1/sources", b'{"name":"x","place":{"origin":"http://\\ud800"}}'),
    ("POST", "/v1/sources", b'{"name":"x","place":{"origin":"http://v","token":"hunter2"}}'),
    ("PUT", "/v1/references/reference/x", b'{"name":"\\ud800"}'),
    ("PUT", "/v1/references/reference/x", b'{"description":"\\u0000"}'),
    ("PUT", "/v1/references/reference/x", b'{"id":"reference/y"}'),
]


@pytest.mark.parametrize(("method", "path", "body"), BAD)
async def test_bad_input_is_a_problem_of_the_caller(
    sync: SyncUnderTest, method: str, path: str, body: bytes | None
) -> None:
    headers = {"authorization": f"Bearer {sync.admin_token()}", "content-type": "application/json"}
    answer = await sync.http.request(method, path, content=body, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
