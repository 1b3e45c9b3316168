"""What administrators see when they create, list, show, change and delete."""

from __future__ import annotations

from typing import Any

import pytest

from shared.events.definitions import definition_digest
from shared.events.policy import ProfileRecord
from tests.unit.policy.front import Front
from tests.unit.policy.stories import STDIO

DEFINITION = STDIO.model_dump(mode="json")


@pytest.fixture
async def front() -> Front:
    made = Front()
    await made.world.hospital()
    return made


async def test_creating_answers_with_the_entity_and_its_receipt(front: Front) -> None:
    made = await front.create("profiles", name="ward", description="ward three")
    event = front.world.ledger.events[-1]
    assert (made["seq"], made["event_id"], made["ended"]) == (event.seq, event.id, [])
    assert (made["entity"]["id"], made["entity"]["name"]) == (made["entity_id"], "ward")
    assert event.actor.subject == "admin"


async def test_the_same_again_is_200_with_the_receipt_of_the_first_time(front: Front) -> None:
    made = await front.create("profiles", name="ward")
    again = await front.ask("POST", "/v1/profiles", {"name": "ward"}, expect=200)
    assert (again["seq"], again["event_id"]) == (made["seq"], made["event_id"])


@pytest.mark.parametrize(
    ("plural", "body"),
    [
        ("idps", {"name": "entra", "issuer": "https://e.example", "jwks_uri": "https://e.example/jwks"}),
        ("profiles", {"name": "ward"}),
        ("mappings", {"idp": "okta", "group": "nurses", "profile": "hospital-a"}),
        ("servers", {"name": "lab", "definition": DEFINITION}),
        ("variables", {"name": "HOSPITAL_DB_URL", "labels": {"env": "prod"}}),
        ("grants", {"profile": "hospital-a", "reference": "hospital-a/db-url", "field": "DB_URL"}),
    ],
)
async def test_every_kind_is_made_shown_listed_and_deleted(front: Front, plural: str, body: dict[str, Any]) -> None:
    made = await front.create(plural, **body)
    key = made["entity_id"]
    assert await front.ask("GET", f"/v1/{plural}/{key}") == made["entity"]
    assert await front.ask("GET", f"/v1/{plural}/{key.partition('/')[2]}") == made["entity"]
    assert made["entity"] in (await front.ask("GET", f"/v1/{plural}"))["items"]
    gone = await front.ask("DELETE", f"/v1/{plural}/{key}")
    assert (gone["entity_id"], gone["ended"]) == (key, [key])
    await front.ask("GET", f"/v1/{plural}/{key}", expect=404)
    await front.ask("DELETE", f"/v1/{plural}/{key}", expect=404)


async def test_entities_carry_the_names_that_people_know(front: Front) -> None:
    (grant,) = (await front.ask("GET", "/v1/grants"))["items"]
    assert (grant["profile_name"], grant["reference_name"]) == ("hospital-a", "hospital-a/db-url")
    assert grant["server_name"] is None
    (binding,) = (await front.ask("GET", "/v1/bindings"))["items"]
    assert (binding["profile_name"], binding["server_name"]) == ("hospital-a", "patients-db")
    assert (binding["reference_name"], binding["current"]) == ("hospital-a/db-url", True)
    (mapping,) = (await front.ask("GET", "/v1/mappings"))["items"]
    assert (mapping["idp_name"], mapping["profile_name"], mapping["group"]) == ("okta", "hospital-a", "agents-a")


async def test_a_grant_for_one_server_is_shown_with_its_name(front: Front) -> None:
    made = await front.create("grants", profile="hospital-a", reference="hospital-a/db-url", server="patients-db")
    assert made["entity"]["server_name"] == "patients-db"


async def test_a_binding_to_another_definition_shows_as_suspended_until_it_is_approved(front: Front) -> None:
    changed = DEFINITION | {"args": ["--read-only"]}
    server = await front.ask("PUT", "/v1/servers/patients-db", {"definition": changed})
    (binding,) = (await front.ask("GET", "/v1/bindings"))["items"]
    assert (binding["current"], server["ended"]) == (False, [binding["id"]])
    stale = {"definition_digest": definition_digest(STDIO)}
    await front.ask("POST", f"/v1/bindings/{binding['id']}/approve", stale, expect=409)
    read = {"definition_digest": server["entity"]["digest"]}
    approved = await front.ask("POST", f"/v1/bindings/{binding['id']}/approve", read)
    assert (approved["entity"]["current"], approved["ended"]) == (True, [])


async def test_approving_without_a_body_takes_the_definition_of_now(front: Front) -> None:
    await front.ask("PUT", "/v1/servers/patients-db", {"definition": DEFINITION | {"args": ["-x"]}})
    (binding,) = (await front.ask("GET", "/v1/bindings"))["items"]
    approved = await front.ask("POST", f"/v1/bindings/{binding['id']}/approve")
    assert approved["entity"]["current"]


async def test_a_binding_moves_to_another_reference_and_ends_what_rested_on_it(front: Front) -> None:
    await front.world.grant("hospital-a/read-only")
    (binding,) = (await front.ask("GET", "/v1/bindings"))["items"]
    body = {"profile": "hospital-a", "server": "patients-db", "field": "DB_URL", "reference": "hospital-a/read-only"}
    moved = await front.ask("PUT", f"/v1/bindings/{binding['id']}", body)
    assert (moved["entity"]["reference_name"], moved["ended"]) == ("hospital-a/read-only", [binding["id"]])


async def test_renaming_keeps_the_id_and_what_is_left_out_of_a_server_keeps_its_name(front: Front) -> None:
    before = await front.ask("GET", "/v1/profiles/hospital-a")
    renamed = await front.ask("PUT", "/v1/profiles/hospital-a", {"name": "hospital-z"})
    assert (renamed["entity_id"], renamed["ended"]) == (before["id"], [])
    server = await front.ask("PUT", "/v1/servers/patients-db", {"definition": DEFINITION, "owner": "lab"})
    assert (server["entity"]["name"], server["entity"]["owner"]) == ("patients-db", "lab")


async def test_a_name_may_hold_slashes_and_is_found_by_its_path(front: Front) -> None:
    await front.create("profiles", name="hospital-a/ward/3")
    shown = await front.ask("GET", "/v1/profiles/hospital-a/ward/3")
    assert shown["name"] == "hospital-a/ward/3"


async def test_pages_hold_everything_once_in_the_order_of_creation(front: Front) -> None:
    names = [f"ward-{number}" for number in range(5)]
    for name in names:
        await front.create("profiles", name=name)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await front.ask("GET", "/v1/profiles?limit=2" + (f"&after={after}" if after else ""))
        assert len(page["items"]) <= 2
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
    assert seen == ["hospital-a", *names]


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "after=x"])
async def test_a_page_that_nobody_can_give_is_refused(front: Front, query: str) -> None:
    await front.ask("GET", f"/v1/profiles?{query}", expect=400)


async def test_lists_are_narrowed_by_what_entities_rest_on(front: Front) -> None:
    await front.world.profile("hospital-b")
    other = await front.world.grant("hospital-b/db-url", "hospital-b")
    for query in (
        "profile=hospital-b",
        "reference=hospital-b/db-url",
        "profile=hospital-b&reference=hospital-b/db-url",
    ):
        assert [one["id"] for one in (await front.ask("GET", f"/v1/grants?{query}"))["items"]] == [other.id]
    both = "profile=hospital-a&reference=hospital-b/db-url"
    assert (await front.ask("GET", f"/v1/grants?{both}"))["items"] == []


@pytest.mark.parametrize("place", ["profile", "server", "idp", "reference"])
async def test_a_filter_that_names_nothing_finds_nothing_rather_than_everything(front: Front, place: str) -> None:
    assert await front.ask("GET", f"/v1/grants?{place}=absent") == {"items": [], "next": None}


async def test_a_reference_that_the_catalog_does_not_have_cannot_be_granted(front: Front) -> None:
    before = front.world.ledger.seq
    problem = await front.ask("POST", "/v1/grants", {"profile": "hospital-a", "reference": "absent"}, expect=400)
    assert "no reference" in problem["detail"]
    assert front.world.ledger.seq == before


async def test_what_is_not_there_answers_alike_for_every_kind(front: Front) -> None:
    answers = {
        (await front.send("GET", f"/v1/{plural}/absent")).body
        for plural in (
            "idps",
            "profiles",
            "mappings",
            "servers",
            "grants",
            "bindings",
            "choices",
            "instances",
            "variables",
        )
    }
    assert len(answers) == 1


async def test_an_id_of_one_kind_is_nothing_below_another(front: Front) -> None:
    profile = await front.world.profile()
    assert isinstance(profile, ProfileRecord)
    await front.ask("GET", f"/v1/grants/{profile.id}", expect=404)
    await front.ask("DELETE", f"/v1/servers/{profile.id}", expect=404)
    await front.ask("GET", f"/v1/profiles/{profile.id}")


async def test_a_refusal_commits_nothing_and_a_failure_of_the_answer_neither(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is made inside the work: a change that can't be told is not made."""

    def fail(*_: object) -> object:
        raise RuntimeError("no name")

    before = front.world.ledger.seq
    monkeypatch.setattr(type(front.world.catalog), "name_of", fail)
    with pytest.raises(RuntimeError):
        await front.send(
            "POST", "/v1/grants", {"profile": "hospital-a", "reference": "hospital-a/db-url", "field": "X"}
        )
    assert front.world.ledger.seq == before
