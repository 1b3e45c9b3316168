"""A value that a person entered, and the key it is under, through the real command and every real service."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio

from services.dev.demo.agents import Agent
from services.dev.demo.stage import FIELD, GATEWAYS, SERVER, Stage
from services.dev.platform.processes import plain_environment
from services.dev.stack.layout import write_private

ROOT = Path(__file__).resolve().parents[2]
PROFILE = "ward"
GROUP = "staff-ward"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a terminal, with a token of their own, who is also an agent."""

    stage: Stage
    agent: Agent
    connection: Path

    async def keyfob(self, *arguments: str, entering: int | None = None) -> str:
        """What the command prints; it must succeed. `entering` the URL of that hospital, by standard input."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services",
            *arguments,
            cwd=ROOT,
            env=plain_environment(KEYFOB_CONNECTION=str(self.connection)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(b"" if entering is None else url_of(self.stage, entering))
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def patients(self) -> list[str]:
        async with self.agent.connect(self.stage.url(GATEWAYS[0], PROFILE)) as database:
            return await database.patients()


def person(stage: Stage, name: str, groups: list[str]) -> Person:
    agent = stage.agent(name, groups)
    told = json.loads(stage.stack.layout.connection.read_text())
    folder = stage.stack.layout.root / "people"
    write_private(folder / f"{name}.token", agent.token)
    write_private(folder / f"{name}.json", json.dumps(told | {"token_file": str(folder / f"{name}.token")}))
    return Person(stage, agent, folder / f"{name}.json")


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


def url_of(stage: Stage, hospital: int) -> bytes:
    one = stage.hospitals[hospital]
    dsn = one.postgres.dsn(one.name, one.name).replace("postgresql://", "postgresql+psycopg2://", 1)
    return dsn.encode()


async def test_an_entered_value_works_is_replaced_and_ends_everywhere_with_proof(ward: Stage) -> None:
    nora = person(ward, "nora", [GROUP])
    first, second = ward.hospitals[:2]
    said = await nora.keyfob("value", "set", SERVER, FIELD, entering=0)
    assert "is entered" in said
    assert await nora.patients() == first.patients
    replaced = json.loads(await nora.keyfob("value", "set", SERVER, FIELD, "--json", entering=1))
    members = (await ward.converged(replaced["event_id"]))["members"]
    assert {one["kind"] for one in members} == {"gateway", "resolver"}
    assert await nora.patients() == second.patients
    (listed,) = json.loads(await nora.keyfob("value", "list", "--json"))
    assert listed.keys() == {"server", "field", "profile", "set_at", "last_used_at"}
    async with nora.agent.connect(ward.url(GATEWAYS[0], PROFILE)) as database:
        assert await database.patients() == second.patients
        # Nobody but administrators may ask who has acted, so she does not wait for it.
        deleted = json.loads(await nora.keyfob("value", "delete", SERVER, FIELD, "--wait-s", "0", "--json"))
        await ward.converged(deleted["change"]["event_id"] if "change" in deleted else deleted["event_id"])
    refusal = await nora.agent.refusal(ward.url(GATEWAYS[0], PROFILE))
    assert refusal is not None
    exported = await ward.stack.call("GET", "audit", "/v1/records", query={"limit": 1000})
    told = [one for one in exported["items"] if one["action"] == "resolver:value:change"]
    assert [(one["decision"], one["actor"]) for one in told if one["actor"] == "nora"] == [
        ("set", "nora"),
        ("replaced", "nora"),
        ("deleted", "nora"),
    ]


async def test_the_key_is_rotated_while_an_agent_works(ward: Stage) -> None:
    olga = person(ward, "olga", [GROUP, "keyfob-operators"])
    await olga.keyfob("value", "set", SERVER, FIELD, entering=0)
    keys = ward.stack.layout.installation_keys
    made = json.loads(await olga.keyfob("keys", "generate", "--directory", str(keys), "--json"))
    async with olga.agent.connect(ward.url(GATEWAYS[1], PROFILE)) as database:
        working = asyncio.create_task(_working(database.patients))
        rotated = json.loads(await olga.keyfob("keys", "rotate", "--json"))
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert not working.done() or working.cancelled(), "a query failed meanwhile"
    assert rotated["rotation"]["finished_at"]
    current = next(one for one in rotated["keys"] if one["state"] == "current")
    former = next(one for one in rotated["keys"] if one["state"] == "former")
    assert (current["key_id"], former["values"]) == (made["key_id"], 0)
    assert "STILL NEED IT" in await olga.keyfob("keys", "retire", former["key_id"])
    assert made["key_id"] in await olga.keyfob("keys", "status")
    assert await olga.patients() == ward.hospitals[0].patients


async def _working(query: Any) -> None:
    while True:
        assert await query()
