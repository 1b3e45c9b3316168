"""What goes wrong: a secret manager that answers nonsense or is sealed, every process killed with values in flight."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil

from services.dev.demo.agents import Agent
from services.dev.demo.stage import GATEWAYS
from services.dev.platform import Process
from services.dev.stack.environments import SERVICES
from tests.leaks.spoiling import WAYS
from tests.leaks.ward import FILE, HTTP, MAPPED, OWN, UNSURE, VAULT, Ward
from tests.waiting import until

VICTIMS = (*SERVICES, *GATEWAYS)
_LONGEST_FLIGHT_S = 0.12
_BACK_S = 60.0
_MOST_ROUNDS = 12
_ECHO = ("echo", {"where": "error", "as": "plain"})


async def be_answered_wrongly(ward: Ward) -> None:
    """Each way of spoiling at least twice, for somebody new each time, so that the value is read each time."""
    ward.spoiler.spoiling = True
    for _ in range(_MOST_ROUNDS):
        await asyncio.gather(*(ward.knock(ward.somebody(), UNSURE, gateway) for gateway in GATEWAYS * 2))
        if min(ward.spoiler.spoilt[way] for way in WAYS) > 1:
            break
    ward.spoiler.spoiling = False
    assert min(ward.spoiler.spoilt[way] for way in WAYS) > 0, ward.spoiler.spoilt
    ward.did("spoilt answers", ward.spoiler.spoilt.total())


async def be_sealed(ward: Ward) -> None:
    """OpenBao sealed while values are asked for, and unsealed again."""
    openbao = ward.stage.stack.platform.openbao
    await openbao._with_admin(lambda admin: admin.sys.seal())
    asked = (ward.knock(ward.somebody(), server, GATEWAYS[0]) for server in (VAULT, UNSURE, FILE))
    assert all(await asyncio.gather(*asked)), "each is refused"
    await openbao._with_admin(openbao._open)
    await until(lambda: _works(ward), within=_BACK_S, every=0.2, what="OpenBao gives values again")


async def _works(ward: Ward) -> bool:
    return not await ward.knock(ward.somebody(), VAULT, GATEWAYS[0])


async def be_killed(ward: Ward, nora: Agent, chance: random.Random) -> None:
    """SIGKILL to each process while values are entered, written, resolved and used."""
    for victim in VICTIMS:
        process, pid = _process(ward, victim), _process(ward, victim).pid
        flight = asyncio.gather(*_flight(ward, nora), return_exceptions=True)
        # The experiment's one random moment, not a wait for anything.
        await asyncio.sleep(chance.uniform(0, _LONGEST_FLIGHT_S))
        process.kill()
        await flight
        await _back(ward, victim, pid)
        ward.did("kills")


def _flight(ward: Ward, nora: Agent) -> list[Coroutine[Any, Any, object]]:
    new = ward.somebody()
    return [
        ward.write("leaks/token", VAULT, "failing"),
        ward.write("leaks/header", HTTP, plain=True),
        ward.enter(nora),
        ward.enter(new),
        ward.talk(new, VAULT, GATEWAYS[0], _ECHO),
        ward.talk(new, MAPPED, GATEWAYS[1], _ECHO),
        ward.talk(nora, OWN, GATEWAYS[1], _ECHO),
        ward.talk(nora, HTTP, GATEWAYS[0], ("echo", {})),
        ward.talk(nora, FILE, GATEWAYS[0], _ECHO),
    ]


async def crash(ward: Ward) -> None:
    """SIGABRT to all of them at once: what would leave a core file, if they left any."""
    nora = ward.stage.agents["nora"]
    await ward.enter(nora)
    held = [(OWN, GATEWAYS[0]), (VAULT, GATEWAYS[1]), (MAPPED, GATEWAYS[0])]
    await asyncio.gather(*(ward.talk(nora, server, gateway, ("pid", {})) for server, gateway in held))
    pids = {victim: _process(ward, victim).pid for victim in VICTIMS}
    for pid in pids.values():
        assert pid is not None
        os.kill(pid, signal.SIGABRT)
    await asyncio.gather(*(_back(ward, victim, pid) for victim, pid in pids.items()))
    ward.did("crashes", len(pids))


async def _back(ward: Ward, name: str, pid: int | None) -> None:
    process = _process(ward, name)
    await until(lambda: process.running and process.pid != pid, within=_BACK_S, what=f"{name} is back")
    await ward.stage.stack.supervisor.until_ready(name, within_s=_BACK_S)


def _process(ward: Ward, name: str) -> Process:
    return ward.stage.stack.supervisor.processes[name]


def core_limits(ward: Ward) -> dict[str, list[str]]:
    """Name → soft and hard limit of core files, of every process that handles values and of every server."""
    limits = {}
    for victim in VICTIMS:
        pid = _process(ward, victim).pid
        assert pid is not None
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            # A gateway's servers come and go.
            text = _limits_of(process.pid)
            line = next((one for one in text.splitlines() if one.startswith("Max core file size")), "")
            if line:
                limits[f"{victim} {process.pid}"] = line.split()[4:6]
    return limits


def _limits_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return ""
