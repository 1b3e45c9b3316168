"""Steps 10 and 11: a value that somebody enters, a new key under work, and what each deployment's environment holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import httpx2

from services.dev.demo.agents import Agent
from services.dev.demo.hospitals import Hospital
from services.dev.demo.narration import expect
from services.dev.demo.people import Person, person
from services.dev.demo.stage import FIELD, GATEWAYS, REGIONS, SERVER, Stage
from services.dev.stack.environments import RESOLVERS

_OWN = "visiting-doctors"
_REGIONAL = "regional-staff"
_COLLEAGUES = 11
_VARIABLE = "REGION_DB_URL"


async def enter_and_rotate(stage: Stage) -> None:
    """People enter URLs of their own, nobody can read one back, and the installation's key changes while they work."""
    hospital = stage.hospitals[0]
    await _open_profile(stage, _OWN, {"local": "subject"})
    nora = person(stage, "nora", [f"staff-{_OWN}"])
    await nora.keyfob("value", "set", SERVER, FIELD, entering=hospital.url)
    listed = json.loads(await nora.keyfob("value", "list", "--json"))
    expect([one["field"] for one in listed] == [FIELD], "the list names what she entered")
    expect(not any(hospital.used[-1] in str(one) for one in listed), "the list does not hold its value")
    stage.narrator.say(f"nora enters {FIELD} herself; {', '.join(sorted(listed[0]))} is all that is ever shown of it")
    colleagues = [stage.agent(f"visitor-{number}", [f"staff-{_OWN}"]) for number in range(1, _COLLEAGUES + 1)]
    await asyncio.gather(*(_enter(stage, agent, hospital.url) for agent in colleagues))
    waiting = iter([nora.agent, *colleagues])

    async def work() -> None:
        # Each time somebody who has no server yet: a resolve of its own, which opens a sealed value.
        agent = next(waiting, nora.agent)
        async with agent.connect(stage.url(GATEWAYS[0], _OWN)) as database:
            expect(await database.patients() == hospital.patients, f"{agent.name} works with what was entered")

    async with _again_and_again(work) as done:
        former = await _change_key(stage, person(stage, "olga", ["keyfob-operators"]))
    stage.narrator.say(
        f"meanwhile agents connected {done.rounds} times, each for another person with a value of their own"
    )
    stage.narrator.say(f"key {former} is retired: only backups from before still need it")


async def _enter(stage: Stage, agent: Agent, value: str) -> None:
    """Enter a value as another client of the API would."""
    url = f"{stage.stack.environments.url(RESOLVERS[0])}/v1/values"
    headers = agent.headers(**{"Content-Type": "application/octet-stream"})
    async with httpx2.AsyncClient() as http:
        query = {"server": SERVER, "field": FIELD}
        answer = await http.put(url, params=query, content=value.encode(), headers=headers)
    expect(answer.is_success, f"{agent.name} may enter a value")


@dataclass(slots=True)
class _Work:
    """How often something was done to its end."""

    rounds: int = 0


@asynccontextmanager
async def _again_and_again(act: Callable[[], Awaitable[None]]) -> AsyncIterator[_Work]:
    """Do something over and over meanwhile, and once to its end after it; what fails in it fails here."""
    work, ending = _Work(), asyncio.Event()

    async def repeat() -> None:
        while not ending.is_set():
            await act()
            work.rounds += 1

    task = asyncio.create_task(repeat())
    try:
        yield work
    finally:
        ending.set()
        await task


async def _change_key(stage: Stage, olga: Person) -> str:
    """A new installation key for every replica, all values brought to it, the former one retired; that one's id."""
    keys = stage.stack.layout.installation_keys
    made = json.loads(await olga.keyfob("keys", "generate", "--directory", str(keys), "--json"))
    status = json.loads(await olga.keyfob("keys", "rotate", "--json"))
    rotation = status["rotation"]
    expect(rotation["finished_at"], "the rotation is finished")
    (current,) = (key for key in status["keys"] if key["state"] == "current")
    (former,) = (key for key in status["keys"] if key["state"] == "former")
    expect(current["key_id"] == made["key_id"] and former["values"] == 0, "every value is under the new key")
    began, ended = (datetime.fromisoformat(rotation[moment]) for moment in ("started_at", "finished_at"))
    brought = f"{rotation['done']} of {rotation['total']} values brought to it"
    what = f"key {former['key_id']} → {current['key_id']}, {brought} in"
    stage.narrator.measured(what, (ended - began).total_seconds() * 1000)
    await olga.keyfob("keys", "retire", former["key_id"])
    return str(former["key_id"])


async def use_each_deployments_own(stage: Stage) -> None:
    """One binding names a variable; gateways with different labels give what their own environments hold."""
    await stage.stack.call("POST", "policy", "/v1/variables", body={"name": _VARIABLE, "labels": {}})
    await _open_profile(stage, _REGIONAL, {"environment": {"variable": _VARIABLE, "labels": {}}})
    agent = stage.agent("agent-regional", [f"staff-{_REGIONAL}"])
    homes = dict(zip(GATEWAYS, stage.hospitals, strict=True))
    await asyncio.gather(*(_deploy(stage, gateway, hospital) for gateway, hospital in homes.items()))
    for gateway, hospital in homes.items():
        async with agent.connect(stage.url(gateway, _REGIONAL)) as database:
            expect(await database.patients() == hospital.patients, f"{gateway} gives the value of its own environment")
        stage.narrator.say(f"{gateway} (region={REGIONS[gateway]}): {', '.join(hospital.patients)}")
    gateway, hospital = GATEWAYS[1], stage.hospitals[1]
    await hospital.rotate()
    await _deploy(stage, gateway, hospital)
    for gateway, hospital in homes.items():
        async with agent.connect(stage.url(gateway, _REGIONAL)) as database:
            expect(await database.patients() == hospital.patients, f"{gateway} works after one deployment changed")
    stage.narrator.say(f"changed in the deployment of {GATEWAYS[1]} alone: its next server has the new value")


async def _deploy(stage: Stage, gateway: str, hospital: Hospital) -> None:
    """Start a gateway again with the hospital's URL in its environment, as its deployment would."""
    given = {_VARIABLE: hospital.url, "KEYFOB_GATEWAY_ENVIRONMENT": _VARIABLE}
    stage.stack.environments.deployments[gateway] = given
    # Not `restart`: a Process keeps the environment that it was made with, and this one is new.
    await stage.stack.supervisor.stop(gateway)
    await stage.stack.start_gateway(gateway)


async def _open_profile(stage: Stage, name: str, origin: dict[str, object]) -> None:
    """A profile for the group `staff-<name>`, whose field comes from `origin`."""
    call = stage.stack.call
    await call("POST", "policy", "/v1/profiles", body={"name": name})
    await call("POST", "policy", "/v1/mappings", body={"profile": name, "idp": "development", "group": f"staff-{name}"})
    await call("POST", "policy", "/v1/bindings", body={"profile": name, "server": SERVER, "field": FIELD, **origin})
