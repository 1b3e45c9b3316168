"""What administrators do to sources and references over HTTP, and who may."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sync.domain.observations import Unreached
from services.sync.sources.port import Unsuitable
from shared.config import Mode
from shared.events.catalog import ReferenceState
from tests.unit.sync.front import Front, front_app

PLACE: Final = {"origin": "https://vault.example:8200", "mount": "secret", "prefix": ""}
BODY: Final = {"name": "main", "place": PLACE}


def routes() -> list[tuple[str, str]]:
    described = front_app().openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in described.items() for method in methods)


def address(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "absent/1", path)


async def statuses(*methods: str, token: str) -> set[int]:
    front = Front()
    asked = [(method, path) for method, path in routes() if method in methods]
    assert asked
    return {(await front.send(method, address(path), {"source": "x"}, token=token)).status for method, path in asked}


@pytest.mark.parametrize("token", ["", "forged"])
async def test_without_a_good_token_nothing_is_answered(token: str) -> None:
    assert await statuses("GET", "POST", "PUT", "DELETE", token=token) == {401}


async def test_whoever_has_no_role_is_let_into_nothing() -> None:
    assert await statuses("GET", "POST", "PUT", "DELETE", token="nobody") == {403}


@pytest.mark.parametrize("token", ["auditor", "operator", "admin"])
async def test_every_role_reads_everything(token: str) -> None:
    assert await statuses("GET", token=token) <= {200, 404}


@pytest.mark.parametrize("token", ["auditor", "operator"])
async def test_only_an_admin_changes_sources_and_references(token: str) -> None:
    assert await statuses("PUT", "DELETE", token=token) == {403}
    front = Front()
    await front.ask("POST", "/v1/sources", BODY, token=token, expect=403)
    assert front.reader.places == []


async def test_an_operator_may_start_a_sync_and_an_auditor_may_not() -> None:
    front = Front()
    await front.ask("POST", "/v1/syncs", {}, token="auditor", expect=403)
    await front.ask("POST", "/v1/syncs", {}, token="operator", expect=202)
    assert front.runs.asked == [((), "operator")]


async def test_a_source_is_looked_at_connected_and_kept_from_then_on() -> None:
    front = Front()
    made = await front.ask("POST", "/v1/sources", BODY, expect=201)
    assert (made["name"], made["place"]["origin"]) == ("main", "https://vault.example:8200")
    assert made["entity_id"] == made["id"]
    assert (len(front.reader.places), front.keepers.refreshed) == (1, 1)
    again = await front.ask("POST", "/v1/sources", BODY, expect=201)
    assert (again["id"], again["seq"]) == (made["id"], made["seq"])


async def test_a_name_that_another_place_has_is_taken() -> None:
    front = Front()
    await front.ask("POST", "/v1/sources", BODY)
    problem = await front.ask("POST", "/v1/sources", BODY | {"place": PLACE | {"mount": "kv"}}, expect=409)
    assert "Another source has that name" in problem["detail"]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(Unsuitable("secret is not a KV version 2 mount."), 400), (Unreached("no connection: refused"), 503)],
)
async def test_what_can_not_be_worked_with_is_not_kept(outcome: Any, status: int) -> None:
    front = Front()
    front.reader.outcome = outcome
    problem = await front.ask("POST", "/v1/sources", BODY, expect=status)
    assert outcome.why in problem["detail"]
    assert (front.catalog.sources_, front.keepers.refreshed) == ({}, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "http://vault.example"},
        {"origin": "https://user@vault.example"},
        {"origin": "https://vault.example/path"},
        {"origin": "vault.example"},
        {"origin": "https://["},
        {"mount": ".."},
        {"mount": "a//b"},
        {"mount": "a\x00b"},
        {"prefix": "../x"},
        {"prefix": "a/./b"},
        {"provider": "aws"},
        {"token": "s.hunter2"},
    ],
    ids=lambda one: "-".join(next(iter(one.items()))),
)
async def test_a_place_that_can_not_be_one_is_refused_before_anything_is_asked(change: dict[str, str]) -> None:
    front = Front()
    reply = await front.send("POST", "/v1/sources", BODY | {"place": PLACE | change})
    assert reply.status == 400
    assert b"hunter2" not in reply.body
    assert front.reader.places == []


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a b", "a/b", "x" * 65, "ü"])
async def test_a_source_s_name_is_safe_as_the_name_of_a_file(name: str) -> None:
    front = Front()
    await front.ask("POST", "/v1/sources", BODY | {"name": name}, expect=400)
    assert front.reader.places == []


async def test_plain_http_is_for_development() -> None:
    front = Front(mode=Mode.DEVELOPMENT)
    await front.ask("POST", "/v1/sources", BODY | {"place": PLACE | {"origin": "http://127.0.0.1:8200"}}, expect=201)


async def test_slashes_around_a_mount_and_a_prefix_do_not_matter() -> None:
    front = Front()
    made = await front.ask("POST", "/v1/sources", BODY | {"place": PLACE | {"mount": "/kv/", "prefix": "/ward/3/"}})
    assert (made["place"]["mount"], made["place"]["prefix"]) == ("kv", "ward/3")


async def test_disconnecting_goes_by_id_and_says_what_to_wait_for() -> None:
    front = Front()
    made = await front.ask("POST", "/v1/sources", BODY)
    gone = await front.ask("DELETE", f"/v1/sources/{made['id']}")
    assert gone == {"entity_id": made["id"], "seq": 2, "event_id": "change/1"}
    assert front.keepers.refreshed == 2
    await front.ask("DELETE", f"/v1/sources/{made['id']}", expect=404)
    assert front.keepers.refreshed == 2


async def test_lists_are_pages_by_name() -> None:
    front = Front()
    for name in ("b", "a", "c"):
        await front.ask("POST", "/v1/sources", BODY | {"name": name})
        front.catalog.has(f"ref-{name}")
    for plural, names in (("sources", ["a", "b", "c"]), ("references", ["ref-a", "ref-b", "ref-c"])):
        first = await front.ask("GET", f"/v1/{plural}?limit=2")
        rest = await front.ask("GET", f"/v1/{plural}?limit=2&after={first['next']}")
        assert [one["name"] for one in [*first["items"], *rest["items"]]] == names
        assert rest["next"] is None


async def test_references_are_narrowed_by_source_state_and_part_of_their_name() -> None:
    front = Front()
    front.catalog.has("ward/db", source="main")
    front.catalog.has("ward/gone", source="main", state=ReferenceState.REMOVED)
    front.catalog.has("lab/db", source="lab")
    for query, names in (
        ("source=main", ["ward/db", "ward/gone"]),
        ("state=removed", ["ward/gone"]),
        ("name=DB", ["lab/db", "ward/db"]),
        ("name=db&source=lab", ["lab/db"]),
        ("source=absent", []),
    ):
        assert [one["name"] for one in (await front.ask("GET", f"/v1/references?{query}"))["items"]] == names
    await front.ask("GET", "/v1/references?state=stolen", expect=400)


async def test_a_reference_is_shown_without_anything_that_could_be_a_value() -> None:
    front = Front()
    view = front.catalog.has("ward/db")
    shown = await front.ask("GET", f"/v1/references/{view.id}")
    assert (shown["name"], shown["version"], shown["state"]) == ("ward/db", "3", "active")
    assert "value" not in shown
    await front.ask("GET", "/v1/references/absent", expect=404)


async def test_only_what_is_there_of_an_edit_is_changed() -> None:
    front = Front()
    view = front.catalog.has("ward/db")
    edited = await front.ask("PUT", f"/v1/references/{view.id}", {"owner": "ward 3"})
    assert (edited["name"], edited["owner"], edited["seq"]) == ("ward/db", "ward 3", 1)
    (edit,) = front.catalog.edits
    assert (edit.name, edit.owner, edit.description) == (None, "ward 3", None)
    await front.ask("PUT", "/v1/references/absent", {"owner": "x"}, expect=404)


@pytest.mark.parametrize(
    "edit",
    [
        {"name": ""},
        {"name": " ward"},
        {"name": "a\u202eb"},
        {"name": "reference/1"},
        {"name": "x" * 257},
        {"owner": "a\x00"},
        {"description": "x" * 2001},
        {"description": "\ud800"},
        {"version": "7"},
        {"state": "active"},
    ],
    ids=lambda one: next(iter(one)),
)
async def test_an_edit_that_nobody_could_read_or_that_is_not_for_people_is_refused(edit: dict[str, str]) -> None:
    front = Front()
    view = front.catalog.has("ward/db")
    assert (await front.send("PUT", f"/v1/references/{view.id}", edit)).status == 400
    assert front.catalog.edits == []


async def test_a_sync_is_of_one_source_by_name_or_id_or_of_all() -> None:
    front = Front()
    one = await front.ask("POST", "/v1/sources", BODY)
    await front.ask("POST", "/v1/sources", BODY | {"name": "lab"})
    for wanted, names in (({"source": "main"}, ("main",)), ({"source": one["id"]}, ("main",)), ({}, ("lab", "main"))):
        run = await front.ask("POST", "/v1/syncs", wanted, expect=202)
        assert front.runs.asked[-1] == (names, "admin")
        assert (run["seen"], run["changed"]) == (2 * len(names), len(names))
    await front.ask("POST", "/v1/syncs", {"source": "absent"}, expect=404)
    await front.ask("POST", "/v1/syncs", {"sources": "main"}, expect=400)


async def test_whoever_follows_a_sync_waits_half_a_minute_at_most() -> None:
    front = Front()
    await front.ask("POST", "/v1/syncs", {})
    await front.ask("GET", "/v1/syncs/sync/1?wait_s=30")
    assert front.runs.waited == [30]
    for wait in ("31", "-1", "nan", "inf", "x"):
        await front.ask("GET", f"/v1/syncs/sync/1?wait_s={wait}", expect=400)
    await front.ask("GET", "/v1/syncs/absent", expect=404)


async def test_coverage_shows_every_source() -> None:
    front = Front()
    await front.ask("POST", "/v1/sources", BODY)
    (shown,) = (await front.ask("GET", "/v1/coverage"))["items"]
    assert (shown["source"], shown["reachable"], shown["keys_visible"]) == ("main", True, None)


texts = st.text(max_size=12) | st.none() | st.integers() | st.lists(st.text(max_size=3), max_size=2)
MEMBERS: Final = ["name", "source", "owner", "description", "origin", "mount", "prefix", "provider", "place"]
members = st.fixed_dictionaries({}, optional=dict.fromkeys(MEMBERS, texts))


@given(
    call=st.sampled_from([("POST", "sources"), ("POST", "syncs"), ("PUT", "references/x"), ("DELETE", "sources/x")]),
    body=members | texts,
    nested=members,
)
def test_no_combination_of_members_is_a_failure_of_ours(call: tuple[str, str], body: Any, nested: Any) -> None:
    if isinstance(body, dict) and "place" in body:
        body["place"] = nested
    method, path = call
    assert asyncio.run(Front().send(method, f"/v1/{path}", body)).status < 500


@given(key=st.text(max_size=20), query=st.text(max_size=20))
def test_no_address_is_a_failure_of_ours(key: str, query: str) -> None:
    async def play() -> None:
        for plural in ("references", "sources", "syncs"):
            reply = await Front().send("GET", f"/v1/{plural}/{key}?after={query}&name={query}")
            assert reply.status < 500

    asyncio.run(play())
