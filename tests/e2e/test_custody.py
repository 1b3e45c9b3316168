"""A value that a person entered, and the key it is under, through the real command and every real service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from services.dev.demo.people import Person, person
from services.dev.demo.stage import FIELD, GATEWAYS, SERVER, Stage

PROFILE = "ward"
GROUP = "staff-ward"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(furnished: Stage) -> AsyncIterator[Stage]:
    """A profile whose people bring their own database URL."""
    call = furnished.stack.call
    await call("POST", "policy", "/v1/profiles", body={"name": PROFILE})
    await call("POST", "policy", "/v1/mappings", body={"profile": PROFILE, "idp": "development", "group": GROUP})
    body = {"profile": PROFILE, "server": SERVER, "field": FIELD, "local": "subject"}
    await call("POST", "policy", "/v1/bindings", body=body)
    yield furnished
    await call("DELETE", "policy", f"/v1/profiles/{(await _profile(furnished))['id']}")


async def _profile(stage: Stage) -> dict[str, Any]:
    return next(one for one in await stage.stack.every("policy", "/v1/profiles") if one["name"] == PROFILE)


async def patients(of: Person, at: Stage) -> list[str]:
    async with of.agent.connect(at.url(GATEWAYS[0], PROFILE)) as database:
        return await database.patients()


async def test_an_entered_value_works_is_replaced_and_ends_everywhere_with_proof(ward: Stage) -> None:
    nina = person(ward, "nina", [GROUP])
    first, second = ward.hospitals[:2]
    said = await nina.keyfob("value", "set", SERVER, FIELD, entering=ward.hospitals[0].url)
    assert "is entered" in said
    assert await patients(nina, ward) == first.patients
    replaced = json.loads(await nina.keyfob("value", "set", SERVER, FIELD, "--json", entering=ward.hospitals[1].url))
    members = (await ward.converged(replaced["event_id"]))["members"]
    assert {one["kind"] for one in members} == {"gateway", "resolver"}
    assert await patients(nina, ward) == second.patients
    (listed,) = json.loads(await nina.keyfob("value", "list", "--json"))
    assert listed.keys() == {"server", "field", "profile", "set_at", "last_used_at"}
    async with nina.agent.connect(ward.url(GATEWAYS[0], PROFILE)) as database:
        assert await database.patients() == second.patients
        # Nobody but administrators may ask who has acted, so she does not wait for it.
        deleted = json.loads(await nina.keyfob("value", "delete", SERVER, FIELD, "--wait-s", "0", "--json"))
        await ward.converged(deleted["change"]["event_id"] if "change" in deleted else deleted["event_id"])
    refusal = await nina.agent.refusal(ward.url(GATEWAYS[0], PROFILE))
    assert refusal is not None
    exported = await ward.stack.call("GET", "audit", "/v1/records", query={"limit": 1000})
    told = [one for one in exported["items"] if one["action"] == "resolver:value:change"]
    assert [(one["decision"], one["actor"]) for one in told if one["actor"] == "nina"] == [
        ("set", "nina"),
        ("replaced", "nina"),
        ("deleted", "nina"),
    ]


async def test_the_key_is_rotated_while_an_agent_works(ward: Stage) -> None:
    oscar = person(ward, "oscar", [GROUP, "keyfob-operators"])
    await oscar.keyfob("value", "set", SERVER, FIELD, entering=ward.hospitals[0].url)
    keys = ward.stack.layout.installation_keys
    made = json.loads(await oscar.keyfob("keys", "generate", "--directory", str(keys), "--json"))
    async with oscar.agent.connect(ward.url(GATEWAYS[1], PROFILE)) as database:
        working = asyncio.create_task(_working(database.patients))
        rotated = json.loads(await oscar.keyfob("keys", "rotate", "--json"))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert not working.done() or working.cancelled(), "a query failed meanwhile"
    assert rotated["rotation"]["finished_at"]
    current = next(one for one in rotated["keys"] if one["state"] == "current")
    former = next(one for one in rotated["keys"] if one["state"] == "former")
    assert (current["key_id"], former["values"]) == (made["key_id"], 0)
    assert "STILL NEED IT" in await oscar.keyfob("keys", "retire", former["key_id"])
    assert made["key_id"] in await oscar.keyfob("keys", "status")
    assert await patients(oscar, ward) == ward.hospitals[0].patients


async def _working(query: Any) -> None:
    while True:
        assert await query()
