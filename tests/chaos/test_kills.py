"""Any service may be killed at any moment: it comes back by itself, and nothing is lost, doubled or stuck.

`KEYFOB_CHAOS_KILLS` says how often each is killed, `KEYFOB_CHAOS_SEED` repeats the moments of an earlier run.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any

import psutil
import pytest

from tests.chaos.ordeal import Ordeal

KILLS = int(os.environ.get("KEYFOB_CHAOS_KILLS", "2"))
VICTIMS = ("sync", "policy", "resolver-1", "notifier", "audit", "gateway-1")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("kill", range(1, KILLS + 1))
async def test_a_killed_service_comes_back_and_everybody_gets_the_new_value(
    attacked: Ordeal, victim: str, kill: int
) -> None:
    async with attacked.busy():
        held = await _prepared(attacked, victim)
        pause_ms = await attacked.kill_in_the_middle(victim, *_also_in_flight(attacked, victim))
        print(f"{victim} killed {pause_ms:.1f} ms after the write of version {attacked.version} began")
        await attacked.everybody_acted()
        await attacked.everybody_has_the_new_value()
    attacked.nothing_strange_was_seen()
    await _aftermath(attacked, victim, held)
    if kill == KILLS:
        await _a_real_agent_works(attacked, "gateway-1" if victim == "gateway-1" else "gateway-2")


async def _prepared(attacked: Ordeal, victim: str) -> list[psutil.Process]:
    """What must be there before the kill; the children of a gateway, which hold a value."""
    match victim:
        case "policy":
            await attacked.grant_spare()
        case "gateway-1":
            assert await attacked.tell(victim) == attacked.value
            return attacked.children_of(victim)
    return []


def _also_in_flight(attacked: Ordeal, victim: str) -> list[Coroutine[Any, Any, None]]:
    match victim:
        case "policy":
            return [attacked.revoke_spare()]
        case "gateway-1":
            return [attacked.try_to_tell(victim) for _ in range(3)]
    return []


async def _aftermath(attacked: Ordeal, victim: str, held: list[psutil.Process]) -> None:
    match victim:
        case "policy":
            await attacked.spare_is_revoked()
        case "gateway-1":
            _, alive = psutil.wait_procs(held, timeout=0)
            assert not alive, "what a killed gateway had started is gone with it"
            assert held, "the gateway ran a server"
            assert await attacked.tell(victim) == attacked.value


async def _a_real_agent_works(attacked: Ordeal, gateway: str) -> None:
    stage = attacked.stage
    hospital = stage.hospitals[0]
    agent = stage.agent("agent-a", [f"staff-{hospital.profile}"])
    async with agent.connect(stage.url(gateway)) as database:
        assert await database.patients() == hospital.patients


@pytest.mark.timeout(300)
async def test_after_all_kills_nothing_was_lost_doubled_or_released_without_a_record(attacked: Ordeal) -> None:
    await attacked.check_everything_that_was_written()
