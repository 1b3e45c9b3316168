"""Agents, a third-party MCP server and a real database, through a real gateway on real topics."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise

import httpx2
import psutil
import pytest
from mcp import Client
from mcp.types import CallToolResult

from shared.events.receipts import LeaseEnd
from tests.integration.gateway.conftest import PATIENTS, SERVER, Wing
from tests.integration.gateway_alone.test_changes import alive
from tests.waiting import until

QUERY = "select name from patients order by name"


async def query(client: Client, sql: str = QUERY) -> str:
    result = await client.call_tool("execute_query", {"query": sql})
    assert isinstance(result, CallToolResult)
    return "".join(getattr(block, "text", "") for block in result.content)


async def patients(client: Client) -> list[str]:
    text = await query(client)
    return [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("name:")]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_each_agent_sees_its_own_hospitals_patients(wing: Wing, mode: str) -> None:
    async with wing.connect("hospital-a", mode=mode) as one, wing.connect("hospital-b", mode=mode) as two:
        tools = {tool.name for tool in (await one.list_tools()).tools}
        assert "execute_query" in tools
        found = await asyncio.gather(*(patients(client) for client in [one, two] * 3))
    assert found == [PATIENTS["hospital-a"], PATIENTS["hospital-b"]] * 3


async def test_after_a_rotation_the_next_query_succeeds_and_the_receipts_prove_it(wing: Wing) -> None:
    async with wing.connect("hospital-a") as client:
        assert await patients(client) == PATIENTS["hospital-a"]
        offset = await wing.rotate("hospital-a")
        await wing.dropped(offset)
        assert await patients(client) == PATIENTS["hospital-a"]
    ended = [end for receipt in wing.receipts for end in receipt.ended]
    assert LeaseEnd.NOTICE in {end.why for end in ended}
    assert wing.forged == []


async def test_receipts_of_a_run_are_numbered_without_gaps_and_never_go_back(wing: Wing) -> None:
    await until(lambda: len(wing.receipts) > 5, within=20)
    receipts = list(wing.receipts)
    assert [one.n for one in receipts] == list(range(receipts[0].n, receipts[0].n + len(receipts)))
    for before, after in pairwise(receipts):
        assert before.applied_offset <= after.applied_offset
        assert before.dropped_offset <= after.dropped_offset
        assert after.dropped_offset <= after.applied_offset


async def test_what_is_not_an_agents_own_answers_like_nothing(wing: Wing) -> None:
    headers = {"Authorization": f"Bearer {wing.world.token('hospital-a')}"}
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with httpx2.AsyncClient(headers=headers, base_url=wing.url) as http:
        answers = [
            await http.post(f"/mcp/{path}", json=ping)
            for path in (f"{SERVER}/hospital-b", f"{SERVER}/no-such-profile", "no-such-server", "%2e%2e/x")
        ]
        nobody = await http.post(f"/mcp/{SERVER}", json=ping, headers={"Authorization": "Bearer not.a.token"})
        healthy = await http.get("/healthz")
        ready = await http.get("/readyz")
        elsewhere = await http.get("/no/such/route")
    assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
    assert nobody.status_code == 401
    assert (healthy.status_code, ready.status_code) == (200, 200)
    assert elsewhere.status_code == 404
    assert elsewhere.headers["content-type"] == "application/problem+json"


async def test_a_body_that_grows_while_it_is_sent_is_cut_off(wing: Wing) -> None:
    async def endless() -> object:
        for _ in range(200):
            yield b"x" * 65536

    headers = {"Authorization": f"Bearer {wing.world.token('hospital-a')}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(headers=headers, base_url=wing.url) as http:
        answer = await http.post(f"/mcp/{SERVER}", content=endless())
    assert answer.status_code == 413


async def test_each_agents_server_runs_in_a_sandbox_of_its_own_where_the_host_allows_one(wing: Wing) -> None:
    if wing.gateway.sandbox is None:
        pytest.skip("no sandbox works on this host")
    async with wing.connect("hospital-a") as one, wing.connect("hospital-b") as two:
        await asyncio.gather(patients(one), patients(two))
        leaders = [
            running.upstream._child.pid
            for running in wing.gateway.seats._running.values()
            if running.upstream._child is not None
        ]
        servers = [psutil.Process(pid).children(recursive=True)[-1].pid for pid in leaders]
        spaces = [os.readlink(f"/proc/{pid}/ns/pid") for pid in (*servers, os.getpid())]  # noqa: PTH115 - a text
    assert len(servers) >= 2
    assert len(set(spaces)) == len(spaces)


async def test_nothing_is_left_of_a_server_whose_session_ended(wing: Wing) -> None:
    async with wing.connect("hospital-b", mode="legacy", subject="passer-by") as client:
        await patients(client)
        pids = [
            str(running.upstream._child.pid)
            for running in wing.gateway.seats._running.values()
            if running.load.caller.subject == "passer-by" and running.upstream._child is not None
        ]
        assert len(pids) == 1
    await until(lambda: not alive(pids[0]), within=20)
    await until(lambda: any(LeaseEnd.SESSION in {end.why for end in one.ended} for one in wing.receipts), within=20)
