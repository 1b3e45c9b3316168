"""Steps 4 to 6: agents work, each in its own hospital, and nobody in another's."""

from __future__ import annotations

import asyncio

import orjson

from services.dev.demo.agents import Agent, Database
from services.dev.demo.narration import expect, present
from services.dev.demo.stage import FIELD, Stage

_ROUNDS = 5


async def query_patients(stage: Stage) -> None:
    """The same server name, on either gateway: each agent gets its own hospital's rows."""
    for index, hospital in enumerate(stage.hospitals):
        gateway = f"gateway-{index + 1}"
        agent = stage.agent(f"agent-{hospital.name[-1]}", [f"staff-{hospital.profile}"])
        async with agent.connect(stage.url(gateway)) as database:
            rows = await database.patients()
        stage.narrator.say(f"{agent.name} at {gateway} sees {', '.join(rows)}")
        expect(rows == hospital.patients, f"{agent.name} sees exactly the patients of {hospital.name}")


async def work_for_both(stage: Stage) -> None:
    """Two open connections with different contexts, interleaved and concurrent."""
    agent = stage.agent("agent-both", [f"staff-{hospital.profile}" for hospital in stage.hospitals])
    first, second = stage.hospitals
    async with (
        agent.connect(stage.url("gateway-1", first.profile)) as at_first,
        agent.connect(stage.url("gateway-1", second.profile)) as at_second,
    ):
        await _expect_own_rows(stage, at_first, at_second)
    stage.narrator.say(f"{2 * _ROUNDS} interleaved and {2 * _ROUNDS} concurrent queries: each context its own rows")
    await _expect_refusals(stage, agent)


async def _expect_own_rows(stage: Stage, at_first: Database, at_second: Database) -> None:
    wanted = [hospital.patients for hospital in stage.hospitals]
    for _ in range(_ROUNDS):
        seen = [await at_first.patients(), await at_second.patients()]
        expect(seen == wanted, "interleaved queries give each context its own rows")
    answers = await asyncio.gather(*(side.patients() for _ in range(_ROUNDS) for side in (at_first, at_second)))
    expect(answers == wanted * _ROUNDS, "concurrent queries give each context its own rows")


async def _expect_refusals(stage: Stage, agent: Agent) -> None:
    unclear = present(await agent.refusal(stage.url("gateway-1")), "without a context it is refused")
    choices = orjson.loads(unclear.body)["choices"]
    expect(sorted(choices) == sorted(hospital.profile for hospital in stage.hospitals), "it may choose from its own")
    stage.narrator.say(f"without a context: refused; it may choose from {', '.join(choices)}")
    outsider, foreign = stage.agents["agent-a"], stage.hospitals[1].profile
    theirs = await outsider.refusal(stage.url("gateway-1", foreign))
    nobodys = await outsider.refusal(stage.url("gateway-1", "no-such-profile"))
    expect(theirs is not None and theirs == nobodys, "a foreign profile is refused like one that does not exist")
    stage.narrator.say("with a profile that is not its own: refused like one that does not exist")


async def probe_foreign_reference(stage: Stage) -> None:
    """Agent A names hospital B's reference exactly; the answer tells it nothing."""
    agent, foreign = stage.agents["agent-a"], stage.hospitals[1].path
    naming_theirs = {"Keyfob-Choice": f"{FIELD}={foreign}"}
    theirs = present(await agent.refusal(stage.url("gateway-1"), **naming_theirs), f"{foreign} is refused")
    nobodys = await agent.refusal(stage.url("gateway-1"), **{"Keyfob-Choice": f"{FIELD}=no-such/reference"})
    expect(theirs == nobodys, "the refusal is byte for byte that of a name that does not exist")
    said = orjson.loads(theirs.body)["detail"]
    stage.narrator.say(f"{theirs.status}, {len(theirs.body)} bytes: {said}")
    stage.narrator.say("byte for byte the same for a name that does not exist")
