"""Steps 7 to 9: a rotation, an instance that comes late, a revocation and an instance that does not answer."""

from __future__ import annotations

import asyncio
from datetime import datetime

from services.dev.demo.agents import Database
from services.dev.demo.narration import expect, present, until
from services.dev.demo.stage import CONVERGENCE_S, GATEWAYS, Stage, Stopwatch

_REVOKED_WITHIN_MS = 1000


async def rotate(stage: Stage) -> None:
    """New password in PostgreSQL, connections cut, new URL in OpenBao. Nobody touches Keyfob."""
    hospital, agent = stage.hospitals[0], stage.agents["agent-a"]
    async with agent.connect(stage.url("gateway-1")) as one, agent.connect(stage.url("gateway-2")) as two:
        expect(await one.patients() == await two.patients() == hospital.patients, "both work before the rotation")
        written_at = await hospital.rotate()
        answer = await stage.notice_for(hospital.path, version="2")
        answer = await stage.converged(answer["notice"]["cause_id"])
        ended = [datetime.fromisoformat(one["at"]) for one in answer["members"] if one["kind"] == "gateway"]
        expect(len(ended) == len(GATEWAYS), "both gateways said that they dropped the old value")
        took = (max(ended) - written_at).total_seconds() * 1000
        stage.narrator.measured(
            "from the write to OpenBao until both instances' receipts that the old value is gone", took
        )
        stage.show_members(answer)
        for database, gateway in ((one, "gateway-1"), (two, "gateway-2")):
            expect(await database.patients() == hospital.patients, f"the next query at {gateway} succeeds")
    stage.narrator.say("agent-a's next query succeeds on both, in the sessions that were open")


async def come_late(stage: Stage) -> None:
    """A gateway that was down while the secret rotated uses the new value at once."""
    hospital, agent = stage.hospitals[0], stage.agents["agent-a"]
    await stage.stack.supervisor.stop("gateway-2")
    await hospital.rotate()
    stage.narrator.say("gateway-2 is stopped, the password is rotated, gateway-2 is started")
    await stage.stack.supervisor.restart("gateway-2")
    async with agent.connect(stage.url("gateway-2")) as database:
        expect(await database.patients() == hospital.patients, "the late instance uses the new value")
    stage.narrator.say("its next query uses the new value")


async def revoke(stage: Stage) -> None:
    """The grant goes while a session is open: it stops working within a second, and the call says who acted."""
    profile, agent = stage.hospitals[1].profile, stage.agents["agent-b"]
    async with agent.connect(stage.url("gateway-1")) as open_session:
        expect(await open_session.patients() == stage.hospitals[1].patients, "it works before")
        watch = Stopwatch()
        receipt = await stage.stack.call("DELETE", "policy", f"/v1/grants/{stage.grants.pop(profile)}")
        await until(lambda: _fails(open_session), within_s=CONVERGENCE_S, sentence="the open session stops working")
        stopped = watch.milliseconds
    stage.narrator.measured("the open session stopped working after", stopped)
    expect(stopped < _REVOKED_WITHIN_MS, "the open session stops working within a second")
    refusal = await agent.refusal(stage.url("gateway-1"))
    expect(refusal is not None, "the next connection is refused")
    stage.show_members(await stage.converged(receipt["event_id"]))
    await _revoke_with_one_silent(stage)


async def _fails(database: Database) -> bool:
    try:
        await asyncio.wait_for(database.patients(), timeout=CONVERGENCE_S)
    except Exception:  # noqa: BLE001 - whatever the SDK raises: it does not work any more, which is the point
        return True
    return False


async def _revoke_with_one_silent(stage: Stage) -> None:
    """Grant again, hold a session at each gateway, stop one by SIGSTOP, and revoke."""
    hospital, agent, call = stage.hospitals[1], stage.agents["agent-b"], stage.stack.call
    granted = await call("POST", "policy", "/v1/grants", body={"profile": hospital.profile, "reference": hospital.path})
    silent = stage.stack.supervisor.processes["gateway-2"]
    for gateway in GATEWAYS:
        async with agent.connect(stage.url(gateway)) as database:
            expect(await database.patients() == hospital.patients, f"it works again at {gateway}")
    silent.suspend()
    try:
        receipt = await call("DELETE", "policy", f"/v1/grants/{granted['entity_id']}")
        answer = present(await stage.convergence(receipt["event_id"], wait_s=3), "there is a notice within 3 s")
        expect(not answer["converged"], "with gateway-2 stopped it is never done")
        waiting = [member["name"] for member in answer["members"] if member["state"] == "pending"]
        expect(waiting == ["gateway-2"], "convergence is pending and names gateway-2, and nobody else")
        stage.narrator.say("the same with gateway-2 stopped by SIGSTOP: pending, until its bound")
        stage.show_members(answer)
    finally:
        silent.resume()
    await stage.converged(receipt["event_id"])
    stage.narrator.say("woken up, it drops what it held and says so: everybody has acted")
