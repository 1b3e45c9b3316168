"""What happens to running servers when something ends: a version, a grant, a lease, the ticks, a process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial

import psutil
import pytest
from mcp import MCPError

from services.gateway.refusals import REFUSED
from shared.errors import NotAvailable
from shared.events.definitions import StdioServer
from shared.events.receipts import LeaseEnd
from tests.fakes.agent_side import gateway, said, teller
from tests.fakes.hospitals import TOKEN_A, TOKEN_B, TOKEN_BOTH
from tests.fakes.installation import Installation, Reference
from tests.waiting import until

LEGACY, MODERN = "legacy", "2026-07-28"
BOTH_REVISIONS = pytest.mark.parametrize("mode", [LEGACY, MODERN])


def alive(pid: str) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE)
    return False


def reached(seen: list[int], number: int) -> bool:
    return bool(seen) and seen[-1] == number


def ends(installation: Installation) -> list[tuple[str, LeaseEnd]]:
    return [(end.lease_id, end.why) for receipt in installation.receipts for end in receipt.ended]


@BOTH_REVISIONS
async def test_after_a_rotation_the_open_connection_uses_the_new_value(
    installation: Installation, first: Reference, mode: str
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        old = await agents.ask(client, "pid")
        installation.say(installation.rotate(first, b"newer value"))
        offset = await agents.settled()
        assert not alive(old)
        assert (await agents.environment(client))["DB_URL"] == "newer value"
        await until(lambda: installation.receipts[-1].dropped_offset >= offset)
        assert [why for _, why in ends(installation)] == [LeaseEnd.NOTICE]


async def test_a_rotation_lets_a_running_call_finish_while_new_ones_get_the_new_value(
    installation: Installation, first: Reference
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        old = await agents.ask(client, "pid")
        running = asyncio.create_task(client.call_tool("slow", {"steps": 10, "pause": 0.05}))
        await until(lambda: any(seat.calls for seat in agents.seats._seats.values()))
        offset = installation.say(installation.rotate(first, b"newer value"))
        await until(lambda: agents.instance.ledger.applied_offset >= offset)
        assert (await agents.environment(client))["DB_URL"] == "newer value"
        assert alive(old)
        assert agents.instance.ledger.progress().dropped_offset < offset, "the old process holds the old value"
        assert said(await running) == "done"
        await agents.settled()
        assert not alive(old)


async def test_a_call_that_does_not_finish_within_the_drain_time_is_cut(
    installation: Installation, first: Reference
) -> None:
    async with gateway(installation, drain_s=0.2) as agents, agents.connect(TOKEN_A) as client:
        running = asyncio.create_task(client.call_tool("slow", {"steps": 10_000, "pause": 0.05}))
        await until(lambda: any(seat.calls for seat in agents.seats._seats.values()))
        installation.say(installation.rotate(first, b"newer value"))
        await agents.settled()
        with pytest.raises(MCPError):
            await running


@BOTH_REVISIONS
async def test_a_revocation_ends_a_running_call_the_process_and_the_session_at_once(
    installation: Installation, mode: str
) -> None:
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_A, mode=mode) as client,
        agents.connect(TOKEN_B) as other,
    ):
        pid, others = await agents.ask(client, "pid"), await agents.ask(other, "pid")
        running = asyncio.create_task(client.call_tool("slow", {"steps": 10_000, "pause": 0.05}))
        await until(lambda: any(seat.calls for seat in agents.seats._seats.values()))
        installation.refuse_all = NotAvailable()
        installation.say(installation.revoke("grant/hospital-a/agent-a"))
        with pytest.raises(MCPError) as ended:
            await running
        await agents.settled()
        assert ended.value.code == REFUSED
        assert not alive(pid)
        with pytest.raises(MCPError) as refused:
            await client.call_tool("pid")
        assert refused.value.message == NotAvailable().detail
        assert await agents.ask(other, "pid") == others, "somebody else's server goes on"


async def test_a_revocation_kills_what_a_rotation_let_drain(installation: Installation, first: Reference) -> None:
    async with gateway(installation, drain_s=30) as agents, agents.connect(TOKEN_A) as client:
        pid = await agents.ask(client, "pid")
        running = asyncio.create_task(client.call_tool("slow", {"steps": 10_000, "pause": 0.05}))
        await until(lambda: any(seat.calls for seat in agents.seats._seats.values()))
        installation.say(installation.rotate(first, b"newer value"))
        installation.say(installation.revoke("grant/hospital-a/agent-a"))
        await agents.settled()
        assert not alive(pid)
        with pytest.raises(MCPError):
            await running


async def test_one_token_of_a_subject_may_end_without_the_other(installation: Installation) -> None:
    """Two tokens, two groups, one profile: each stands on its own leases, and the process on both."""
    installation.tokens["other"] = replace(installation.tokens[TOKEN_A], rests_on=("mapping/other",))
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_A, mode=MODERN) as client,
        agents.connect("other", mode=MODERN) as other,
    ):
        pid = await agents.ask(client, "pid")
        assert await agents.ask(other, "pid") == pid
        del installation.tokens["other"]
        installation.say(installation.revoke("mapping/other"))
        await agents.settled()
        assert await agents.ask(client, "pid") == pid
        with pytest.raises(MCPError) as refused:
            await other.call_tool("pid")
        assert refused.value.data["status"] == 401
        assert agents.instance.ledger.progress().open_leases == 1


async def test_a_call_on_the_token_that_ended_ends_although_the_process_goes_on(installation: Installation) -> None:
    installation.tokens["other"] = replace(installation.tokens[TOKEN_A], rests_on=("mapping/other",))
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_A, mode=MODERN) as client,
        agents.connect("other", mode=MODERN) as other,
    ):
        pid = await agents.ask(client, "pid")
        await agents.ask(other, "pid")
        running = asyncio.create_task(other.call_tool("slow", {"steps": 10_000, "pause": 0.05}))
        mine = asyncio.create_task(client.call_tool("slow", {"steps": 20, "pause": 0.05}))
        await until(lambda: all(seat.calls for seat in agents.seats._seats.values()))
        installation.say(installation.revoke("mapping/other"))
        with pytest.raises(MCPError) as ended:
            await running
        assert ended.value.code == REFUSED
        assert said(await mine) == "done"
        assert await agents.ask(client, "pid") == pid


async def test_a_revocation_does_not_wait_for_a_server_that_does_not_want_to_go(installation: Installation) -> None:
    installation.define("teller", teller("--stubborn"))
    async with gateway(installation, stop_s=60) as agents, agents.connect(TOKEN_A) as client:
        pid = await agents.ask(client, "pid")
        installation.say(installation.revoke("grant/hospital-a/agent-a"))
        await agents.settled()
        assert not alive(pid)


async def test_without_ticks_everything_is_dropped_and_refused(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        pid = await agents.ask(client, "pid")
        installation.clock.forward(61)
        await until(lambda: not alive(pid))
        with pytest.raises(MCPError):
            await client.call_tool("pid")
        await until(lambda: [why for _, why in ends(installation)] == [LeaseEnd.FENCED])
        installation.tick()
        assert await until(lambda: agents.instance.not_ready() is None)
        assert await agents.ask(client, "pid") != pid


async def test_a_lease_is_renewed_in_use_without_restarting_the_server(installation: Installation) -> None:
    async with gateway(installation, fence_s=1e6) as agents, agents.connect(TOKEN_A, mode=MODERN) as client:
        pid = await agents.ask(client, "pid")
        for _ in range(3):
            count = len(installation.asked)
            assert await agents.ask(client, "pid") == pid
            assert len(installation.asked) == count, "a lease with time left is not renewed"
            installation.clock.forward(installation.lease_s * 0.95)
            installation.lease_s *= 2
            assert await agents.ask(client, "pid") == pid
            assert len(installation.asked) == count + 1
        await until(lambda: [why for _, why in ends(installation)] == [LeaseEnd.REPLACED] * 3)
        assert agents.instance.ledger.progress().open_leases == 1


async def test_a_lease_that_is_not_renewed_ends_its_server(installation: Installation) -> None:
    async with gateway(installation, fence_s=1e6) as agents, agents.connect(TOKEN_A, mode=MODERN) as client:
        pid = await agents.ask(client, "pid")
        installation.clock.forward(installation.lease_s)
        installation.lease_s *= 3
        await until(lambda: not alive(pid))
        await until(lambda: [why for _, why in ends(installation)] == [LeaseEnd.EXPIRED])
        assert await agents.ask(client, "pid") != pid


async def test_a_renewal_that_is_refused_ends_the_connection(installation: Installation) -> None:
    async with gateway(installation, fence_s=1e6) as agents, agents.connect(TOKEN_A, mode=MODERN) as client:
        await client.call_tool("pid")
        installation.refuse_all = NotAvailable()
        installation.clock.forward(installation.lease_s * 0.95)
        with pytest.raises(MCPError) as refused:
            await client.call_tool("pid")
        assert refused.value.data["status"] == 404


async def test_a_server_that_nobody_calls_is_stopped(installation: Installation) -> None:
    async with gateway(installation, idle_s=0.2) as agents, agents.connect(TOKEN_A) as client:
        pid = await agents.ask(client, "pid")
        await until(lambda: not alive(pid))
        await until(lambda: {why for _, why in ends(installation)} == {LeaseEnd.SESSION})
        assert await agents.ask(client, "pid") != pid


async def test_a_server_that_crashes_fails_that_call_and_the_next_starts_anew(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        pid = await agents.ask(client, "pid")
        with pytest.raises(MCPError) as crashed:
            await client.call_tool("crash")
        assert crashed.value.code == REFUSED
        assert await agents.ask(client, "pid") != pid
        await until(lambda: [why for _, why in ends(installation)] == [LeaseEnd.SESSION])


async def test_leaving_the_gateway_leaves_no_process(installation: Installation) -> None:
    installation.define("teller", teller("--stubborn"))
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        pid, child = await agents.ask(client, "pid"), await agents.ask(client, "child")
        assert alive(child)
    assert not alive(pid)
    await until(lambda: not alive(child), what="the child of the child went with its group")


@pytest.mark.parametrize(
    "definition",
    [
        StdioServer(command="/no/such/program", fields=teller().fields),
        StdioServer(command="no-such-program", fields=teller().fields),
        StdioServer(command="./relative", fields=teller().fields),
        StdioServer(command="/bin/false", fields=teller().fields),
        teller("--mute"),
    ],
)
async def test_a_server_that_does_not_start_is_a_clear_refusal_and_holds_nothing(
    installation: Installation, definition: StdioServer
) -> None:
    installation.define("teller", definition)
    async with gateway(installation, start_s=0.5) as agents:
        async with agents.client(TOKEN_A) as http:
            answer = await http.post("/mcp/teller", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert "value-of-a" not in answer.text
        await until(lambda: agents.instance.ledger.progress().open_leases == 0)
        await until(lambda: len(agents.seats) == 0)


async def test_noise_of_a_server_does_no_harm(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        assert await agents.ask(client, "chatter", size=4_000_000) == "ok"
        assert await agents.ask(client, "pid")


async def test_a_message_beyond_the_limit_ends_the_server(installation: Installation) -> None:
    async with gateway(installation, line_limit=100_000) as agents, agents.connect(TOKEN_A) as client:
        assert len(await agents.ask(client, "long", size=50_000)) == 50_000
        with pytest.raises(MCPError):
            await client.call_tool("long", {"size": 500_000})
        assert await agents.ask(client, "pid")


async def test_no_more_servers_run_than_may(installation: Installation) -> None:
    async with (
        gateway(installation, upstream_limit=1) as agents,
        agents.connect(TOKEN_A),
        agents.client(TOKEN_B) as http,
    ):
        answer = await http.post("/mcp/teller", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers


async def test_where_uids_are_shared_a_second_subject_is_refused(installation: Installation) -> None:
    async with gateway(installation, one_subject=True) as agents, agents.connect(TOKEN_A):
        async with agents.client(TOKEN_B) as http:
            answer = await http.post("/mcp/teller", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert answer.status_code == 503
        async with agents.connect(TOKEN_A) as again:
            assert await agents.ask(again, "pid")


async def test_a_storm_of_rotations_under_load_never_serves_a_version_that_was_dropped(
    installation: Installation, first: Reference
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_BOTH, "teller/hospital-a", mode=MODERN) as client:
        stop = asyncio.Event()
        seen: list[int] = []

        async def work() -> None:
            while not stop.is_set():
                before = int(installation.tokens[TOKEN_BOTH].contexts["hospital-a"]["DB_URL"].version)
                dropped = agents.instance.ledger.progress().dropped_offset >= installation.notices.end - 1
                value = (await agents.environment(client))["DB_URL"]
                version = int(value.rpartition("-")[2]) if value.startswith("version-") else 1
                seen.append(version)
                assert not dropped or version >= before

        working = [asyncio.create_task(work()) for _ in range(3)]
        for number in range(2, 8):
            installation.say(installation.rotate(first, b"version-%d" % number))
            await agents.settled()
            await until(partial(reached, seen, number))
        stop.set()
        await asyncio.gather(*working)


async def test_with_its_last_session_a_server_goes(installation: Installation) -> None:
    async with gateway(installation) as agents:
        async with agents.connect(TOKEN_A, mode=LEGACY) as client:
            pid = await agents.ask(client, "pid")
            async with agents.connect(TOKEN_A, mode=LEGACY) as second:
                assert await agents.ask(second, "pid") == pid
            assert await agents.ask(client, "pid") == pid, "one session is still open"
        await until(lambda: not alive(pid))
        await until(lambda: {why for _, why in ends(installation)} == {LeaseEnd.SESSION})


async def test_the_end_of_a_session_does_not_disturb_agents_without_sessions(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=MODERN) as client:
        pid = await agents.ask(client, "pid")
        async with agents.connect(TOKEN_A, mode=LEGACY) as second:
            assert await agents.ask(second, "pid") == pid
        assert await agents.ask(client, "pid") == pid
