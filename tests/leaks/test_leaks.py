"""The canary run: values of every kind are used, in work, in trouble and in crashes, and then looked for everywhere.

The tests are steps of one run, in this order. The last ones search; each of the others only drives.
"""

from __future__ import annotations

import os
import random
import secrets

import pytest

from tests.leaks import driving_agents, driving_operators, driving_strangers, driving_trouble
from tests.leaks.conftest import Run
from tests.leaks.planting import core_files
from tests.leaks.verdict import judge, not_private, summary

pytestmark = pytest.mark.timeout(240)


async def test_every_value_reaches_the_server_that_it_is_for(run: Run) -> None:
    await driving_agents.arrive(run.ward)


async def test_servers_tell_what_they_were_given(run: Run) -> None:
    await driving_agents.be_told(run.ward, run.ward.stage.agents["nora"])
    await driving_agents.never_start(run.ward)
    await driving_agents.call_over_http(run.ward, run.ward.stage.agents["nora"])


@pytest.mark.parametrize("name", driving_strangers.SERVICES_KNOCKED_AT)
async def test_strangers_send_values_where_none_belong(run: Run, name: str) -> None:
    await driving_strangers.knock(run.ward, name)


async def test_strangers_at_gateways_and_webhooks(run: Run) -> None:
    await driving_strangers.knock_at_gateways(run.ward)
    await driving_strangers.forge_hints(run.ward)


async def test_a_secret_manager_answers_wrongly_and_is_sealed(run: Run) -> None:
    await driving_trouble.be_answered_wrongly(run.ward)
    await driving_trouble.be_sealed(run.ward)


async def test_every_process_is_killed_with_values_in_flight(run: Run) -> None:
    seed = int(os.environ.get("KEYFOB_LEAKS_SEED", "0")) or secrets.randbits(32)
    run.said.append(f"KEYFOB_LEAKS_SEED={seed}")
    chance = random.Random(seed)  # noqa: S311 - repeatable, on purpose
    await driving_trouble.be_killed(run.ward, run.ward.stage.agents["nora"], chance)


async def test_the_installation_key_is_rotated_killed_recovered(run: Run) -> None:
    await driving_operators.rotate_the_key(run.ward)


async def test_people_look_at_everything_and_tell_it_wrong_things(run: Run) -> None:
    await driving_operators.look(run.ward)
    await driving_strangers.look_at_everything(run.ward)
    await driving_operators.be_told_wrongly(run.ward)


async def test_a_crash_leaves_no_core_file(run: Run) -> None:
    limits = driving_trouble.core_limits(run.ward)
    assert {name: limit for name, limit in limits.items() if limit != ["0", "0"]} == {}
    before = core_files(run.ward.stage.stack)
    await driving_trouble.crash(run.ward)
    assert core_files(run.ward.stage.stack) == before


async def test_everything_is_taken_away(run: Run) -> None:
    await driving_operators.take_away(run.ward, run.ward.stage.agents["nora"])


async def test_no_value_is_anywhere_and_what_was_planted_is_found(run: Run) -> None:
    driving_operators.signing_keys(run.ward)
    run.watch.stop()
    verdict = await judge(run.ward, run.planted, run.watch, run.since)
    run.said += summary(run.ward, run.planted, run.watch, verdict)
    assert run.planted.missing(verdict.planted) == [], "a search that can't find proves nothing"
    assert sorted(map(str, verdict.leaks)) == []
    assert list(not_private(run.ward.stage.stack.layout)) == []
