"""Administration over HTTP, on a real database and broker."""

from __future__ import annotations

from services.policy.domain.drafts import LONGEST_ENROLMENT_S
from tests.integration.policy.conftest import PolicyUnderTest, fresh
from tests.integration.policy.stories import STDIO, hospital, idp_of


async def test_a_profile_is_made_listed_shown_and_deleted(policy: PolicyUnderTest) -> None:
    name = fresh("profile")
    made = await policy.call("POST", "/v1/profiles", {"name": name}, expect=201)
    assert made["entity"]["name"] == name
    shown = await policy.call("GET", f"/v1/profiles/{made['entity_id']}")
    assert shown == made["entity"] == await policy.call("GET", f"/v1/profiles/{name}")
    assert shown in (await policy.call("GET", "/v1/profiles?limit=500"))["items"]
    gone = await policy.call("DELETE", f"/v1/profiles/{made['entity_id']}")
    assert gone["ended"] == [made["entity_id"]]
    assert gone["seq"] > made["seq"]
    await policy.call("GET", f"/v1/profiles/{name}", expect=404)


async def test_entities_are_shown_with_names(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    grant = await policy.call("GET", f"/v1/grants/{it.grant_id}")
    assert (grant["profile_name"], grant["reference_name"]) == (it.profile, it.reference)
    binding = await policy.call("GET", f"/v1/bindings/{it.binding_id}")
    assert (binding["server_name"], binding["reference_name"], binding["current"]) == (it.server, it.reference, True)
    mapping = await policy.call("GET", f"/v1/mappings/{it.mapping_id}")
    assert (mapping["idp_name"], mapping["profile_name"], mapping["group"]) == (it.idp, it.profile, it.group)


async def test_lists_are_filtered_by_what_entities_rest_on(policy: PolicyUnderTest) -> None:
    it, _other = await hospital(policy), await hospital(policy)
    for query in (f"profile={it.profile}", f"reference={it.reference}", f"profile={it.profile_id}"):
        items = (await policy.call("GET", f"/v1/grants?{query}"))["items"]
        assert [item["id"] for item in items] == [it.grant_id]
    assert (await policy.call("GET", "/v1/grants?profile=nobody"))["items"] == []


async def test_pages_hold_everything_once_in_the_order_of_creation(policy: PolicyUnderTest) -> None:
    names = [fresh("page") for _ in range(5)]
    for name in names:
        await policy.call("POST", "/v1/profiles", {"name": name})
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await policy.call("GET", f"/v1/profiles?limit=2{after and '&after=' + after}")
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
    assert len(seen) == len(set(seen))
    assert [name for name in seen if name in names] == names


async def test_the_same_again_is_the_one_that_stands(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    again = await policy.call("POST", "/v1/grants", {"profile": it.profile, "reference": it.reference}, expect=200)
    assert again["entity_id"] == it.grant_id
    body = {"name": fresh("profile"), "description": "one"}
    made = await policy.call("POST", "/v1/profiles", body, expect=201)
    again = await policy.call("POST", "/v1/profiles", body, expect=200)
    assert (again["seq"], again["event_id"]) == (made["seq"], made["event_id"])
    await policy.call("POST", "/v1/profiles", body | {"description": "another"}, expect=409)


async def test_deleting_a_profile_ends_all_that_rests_on_it_in_one_commit(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    gone = await policy.call("DELETE", f"/v1/profiles/{it.profile}")
    assert set(gone["ended"]) == {it.profile_id, it.mapping_id, it.grant_id, it.binding_id}
    for path in (f"grants/{it.grant_id}", f"bindings/{it.binding_id}", f"mappings/{it.mapping_id}"):
        await policy.call("GET", f"/v1/{path}", expect=404)
    await policy.call("GET", f"/v1/servers/{it.server}")


async def test_deleting_a_server_ends_its_bindings_and_grants_limited_to_it(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    body = {"profile": it.profile, "reference": it.reference, "server": it.server}
    limited = await policy.call("POST", "/v1/grants", body, expect=201)
    gone = await policy.call("DELETE", f"/v1/servers/{it.server}")
    assert set(gone["ended"]) == {it.server_id, it.binding_id, limited["entity_id"]}
    await policy.call("GET", f"/v1/grants/{it.grant_id}")


async def test_another_definition_suspends_bindings_until_they_are_approved(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    changed = {"owner": "it", "definition": STDIO | {"args": ["--loud"]}}
    answer = await policy.call("PUT", f"/v1/servers/{it.server}", changed)
    assert answer["ended"] == [it.binding_id]
    assert (await policy.call("GET", f"/v1/bindings/{it.binding_id}"))["current"] is False
    old = {"definition_digest": "0" * 64}
    await policy.call("POST", f"/v1/bindings/{it.binding_id}/approve", old, expect=409)
    approved = await policy.call("POST", f"/v1/bindings/{it.binding_id}/approve")
    assert approved["entity"]["current"] is True
    assert approved["entity"]["definition_digest"] == answer["entity"]["digest"]


async def test_a_new_owner_suspends_nothing(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    answer = await policy.call("PUT", f"/v1/servers/{it.server}", {"owner": "ops", "definition": STDIO})
    assert answer["ended"] == []
    assert answer["entity"]["owner"] == "ops"
    assert (await policy.call("GET", f"/v1/bindings/{it.binding_id}"))["current"] is True


async def test_a_binding_moves_to_another_granted_reference_and_ends_its_leases(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    (other,) = await policy.sync.publish(fresh("hospital") + "/db-url")
    body = {"profile": it.profile, "server": it.server, "field": "DB_URL", "reference": other.name}
    await policy.call("PUT", f"/v1/bindings/{it.binding_id}", body, expect=409)
    await policy.call("POST", "/v1/grants", {"profile": it.profile, "reference": other.id})
    moved = await policy.call("PUT", f"/v1/bindings/{it.binding_id}", body)
    assert moved["ended"] == [it.binding_id]
    assert moved["entity"]["reference_name"] == other.name


async def test_what_is_named_must_be_there(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    bad = [
        ("/v1/grants", {"profile": "nobody", "reference": it.reference}),
        ("/v1/grants", {"profile": it.profile, "reference": "no/such"}),
        ("/v1/grants", {"profile": it.profile, "reference": it.reference, "server": "none"}),
        ("/v1/grants", {"profile": it.profile, "reference": it.reference, "server": it.server, "field": "NO"}),
        ("/v1/bindings", {"profile": it.profile, "server": it.server, "field": "NO", "reference": it.reference}),
        ("/v1/mappings", {"idp": "nobody", "group": "g", "profile": it.profile}),
        ("/v1/enrolments", {"name": fresh("gw"), "allowed_servers": ["none"]}),
        ("/v1/enrolments", {"name": fresh("gw"), "expires_in_s": LONGEST_ENROLMENT_S + 1}),
    ]
    for path, body in bad:
        problem = await policy.call("POST", path, body, expect=400)
        assert "none" not in problem["detail"]
        assert "nobody" not in problem["detail"]


async def test_a_binding_needs_a_grant_that_covers_its_field(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    (other,) = await policy.sync.publish(fresh("x"))
    profile = fresh("profile")
    await policy.call("POST", "/v1/profiles", {"name": profile})
    body = {"profile": profile, "server": it.server, "field": "DB_URL", "reference": other.name}
    problem = await policy.call("POST", "/v1/bindings", body, expect=409)
    assert "grant" in problem["detail"]


async def test_two_identity_providers_never_share_an_issuer(policy: PolicyUnderTest) -> None:
    await idp_of(policy)
    body = {"name": fresh("idp"), "issuer": policy.issuer.url, "jwks_uri": "https://elsewhere.example/jwks"}
    await policy.call("POST", "/v1/idps", body, expect=409)


async def test_roles_decide_who_reads_and_who_writes(policy: PolicyUnderTest) -> None:
    auditor = policy.token("otto", "keyfob-auditors")
    nobody = policy.token("nina", "people")
    body = {"name": fresh("profile")}
    await policy.call("GET", "/v1/profiles", token=auditor)
    await policy.call("POST", "/v1/profiles", body, token=auditor, expect=403)
    await policy.call("GET", "/v1/profiles", token=nobody, expect=403)
    await policy.call("GET", "/v1/profiles", token="", expect=401)
    await policy.call("DELETE", "/v1/profiles/x", token=nobody, expect=403)
