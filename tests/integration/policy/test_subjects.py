"""What subjects see and choose: their own profiles' references, and nothing that hints at others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.events.catalog import ReferenceRecord, ReferenceState
from tests.integration.policy.conftest import Instance, PolicyUnderTest, fresh
from tests.integration.policy.stories import Hospital, hospital
from tests.waiting import until


async def with_second_reference(policy: PolicyUnderTest, it: Hospital) -> str:
    (other,) = await policy.sync.publish(fresh("hospital") + "/read-only")
    await policy.call("POST", "/v1/grants", {"profile": it.profile, "reference": other.name})
    return other.name


async def test_a_subject_sees_the_names_of_its_own_profiles_and_no_other(policy: PolicyUnderTest) -> None:
    mine, _theirs = await hospital(policy), await hospital(policy)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    (closed,) = await policy.sync.publish(fresh("later"))
    await policy.call("POST", "/v1/grants", {"profile": mine.profile, "reference": closed.id, "starts_at": later})
    answer = await policy.call("GET", "/v1/me/references", token=policy.token("agent", mine.group))
    assert answer["items"] == [{"reference": mine.reference, "contexts": [mine.profile]}]
    nobody = await policy.call("GET", "/v1/me/references", token=policy.token("agent", fresh("group")))
    assert nobody["items"] == []


async def test_a_subject_chooses_by_name_and_the_last_choice_counts(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    other = await with_second_reference(policy, it)
    agent = policy.token(fresh("agent"), it.group)
    body = {"server": it.server, "field": "DB_URL", "reference": other}
    made = await policy.call("PUT", "/v1/me/choices", body, token=agent, expect=201)
    assert made["entity"]["reference_name"] == other
    again = await policy.call("PUT", "/v1/me/choices", body, token=agent, expect=200)
    assert again["seq"] == made["seq"]
    changed = await policy.call("PUT", "/v1/me/choices", body | {"reference": it.reference}, token=agent)
    assert (changed["entity_id"], changed["entity"]["reference_name"]) == (made["entity_id"], it.reference)
    mine = await policy.call("GET", "/v1/me/choices", token=agent)
    assert [one["id"] for one in mine["items"]] == [made["entity_id"]]


async def test_what_is_not_the_subjects_is_refused_like_what_does_not_exist(policy: PolicyUnderTest) -> None:
    mine, theirs = await hospital(policy), await hospital(policy)
    headers = {"authorization": f"Bearer {policy.token('agent', mine.group)}"}
    good = {"server": mine.server, "field": "DB_URL", "reference": mine.reference}
    bad = [
        good | {"reference": theirs.reference},
        good | {"reference": theirs.reference_id},
        good | {"reference": "no/such"},
        good | {"server": theirs.server},
        good | {"server": "none"},
        good | {"field": "NO"},
        good | {"context": theirs.profile},
        good | {"context": "nobody"},
    ]
    answers = [await policy.http.put("/v1/me/choices", json=body, headers=headers) for body in bad]
    assert {(one.status_code, one.content) for one in answers} == {(404, answers[0].content)}


async def test_a_subject_of_several_profiles_is_asked_for_the_context(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    second = fresh("profile")
    await policy.call("POST", "/v1/profiles", {"name": second})
    await policy.call("POST", "/v1/mappings", {"idp": it.idp, "group": it.group, "profile": second})
    await policy.call("POST", "/v1/grants", {"profile": second, "reference": it.reference})
    bound = {"profile": second, "server": it.server, "field": "DB_URL", "reference": it.reference}
    await policy.call("POST", "/v1/bindings", bound)
    agent = policy.token(fresh("agent"), it.group)
    body = {"server": it.server, "field": "DB_URL", "reference": it.reference}
    problem = await policy.call("PUT", "/v1/me/choices", body, token=agent, expect=409)
    assert set(problem["choices"]) == {it.profile, second}
    made = await policy.call("PUT", "/v1/me/choices", body | {"context": second}, token=agent)
    assert made["entity"]["profile_name"] == second


async def test_a_choice_falls_with_the_grant_that_allowed_it(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    agent = policy.token(fresh("agent"), it.group)
    body = {"server": it.server, "field": "DB_URL", "reference": it.reference}
    choice = (await policy.call("PUT", "/v1/me/choices", body, token=agent))["entity_id"]
    gone = await policy.call("DELETE", f"/v1/grants/{it.grant_id}")
    assert gone["ended"] == [it.grant_id, choice]


async def test_nobody_takes_back_anothers_choice(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    agent, other = policy.token(fresh("agent"), it.group), policy.token(fresh("agent"), it.group)
    body = {"server": it.server, "field": "DB_URL", "reference": it.reference}
    choice = (await policy.call("PUT", "/v1/me/choices", body, token=agent))["entity_id"]
    await policy.call("DELETE", f"/v1/me/choices/{choice}", token=other, expect=404)
    gone = await policy.call("DELETE", f"/v1/me/choices/{choice}", token=agent)
    assert gone["ended"] == [choice]


async def test_a_token_of_an_issuer_that_policy_does_not_trust_is_refused(policy: PolicyUnderTest) -> None:
    await hospital(policy)
    foreign = policy.issuer.token("agent", ["g"], iss="https://elsewhere.example")
    await policy.call("GET", "/v1/me/references", token=foreign, expect=401)
    await policy.call("GET", "/v1/me/references", token=policy.issuer.token("a", [], audience="other"), expect=401)


async def test_who_could_names_profiles_groups_servers_and_instances(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    gateway = Instance(fresh("gateway"))
    body = {"name": gateway.name, "allowed_servers": [it.server]}
    token = (await policy.call("POST", "/v1/enrolments", body))["token"]
    await policy.call("POST", "/v1/enrol", gateway.request(token), token="")
    answer = await policy.call("GET", f"/v1/who-could?reference={it.reference}")
    (way,) = answer["ways"]
    assert way["profile"] == {"id": it.profile_id, "name": it.profile}
    assert [(one["idp_name"], one["group"]) for one in way["groups"]] == [(it.idp, it.group)]
    assert [(one["server"]["name"], one["field"], one["bound"]) for one in way["places"]] == [
        (it.server, "DB_URL", True)
    ]
    assert gateway.name in {one["name"] for one in way["instances"]}
    assert way["open_now"] is True
    await policy.call("POST", f"/v1/instances/{gateway.name}/ban")
    (way,) = (await policy.call("GET", f"/v1/who-could?reference={it.reference}"))["ways"]
    assert gateway.name not in {one["name"] for one in way["instances"]}
    await policy.call("GET", "/v1/who-could?reference=no/such", expect=404)


async def test_a_reference_that_sync_removed_can_no_longer_be_granted_but_keeps_its_name(
    policy: PolicyUnderTest,
) -> None:
    it = await hospital(policy)
    (reference,) = await policy.sync.publish(fresh("old"))
    body = {"profile": it.profile, "reference": reference.name}
    grant = (await policy.call("POST", "/v1/grants", body))["entity_id"]
    await policy.sync.send(removed(policy, reference))

    async def refused() -> bool:
        headers = {"authorization": f"Bearer {policy.admin_token()}"}
        fields = body | {"field": fresh("F").replace("-", "_")}
        return (await policy.http.post("/v1/grants", json=fields, headers=headers)).status_code == 400

    await until(refused)
    assert (await policy.call("GET", f"/v1/grants/{grant}"))["reference_name"] == reference.name


def removed(policy: PolicyUnderTest, record: ReferenceRecord) -> ReferenceRecord:
    said = {"state": ReferenceState.REMOVED, "seq": policy.sync.next_seq(), "revision": record.revision + 1}
    return record.model_copy(update=said)
