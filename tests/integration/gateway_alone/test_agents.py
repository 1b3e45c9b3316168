"""What an agent experiences: the real SDK on both sides, real child processes, a fake installation behind."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from mcp import MCPError

from shared.errors import ChoiceNeeded
from tests.fakes.agent_side import gateway, said
from tests.fakes.hospitals import TOKEN_A, TOKEN_B, TOKEN_BOTH
from tests.fakes.installation import Installation, Reference
from tests.waiting import until

LEGACY, MODERN = "legacy", "2026-07-28"


@pytest.mark.parametrize("mode", [LEGACY, "auto", MODERN])
async def test_an_agent_reaches_its_server_with_its_own_value(installation: Installation, mode: str) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        tools = await client.list_tools()
        assert "environment" in {tool.name for tool in tools.tools}
        assert (await agents.environment(client))["DB_URL"] == "value-of-a"


async def test_agents_of_one_server_name_each_get_their_own(installation: Installation) -> None:
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_A) as one,
        agents.connect(TOKEN_B, mode=LEGACY) as two,
    ):
        found = await asyncio.gather(*(agents.environment(client) for client in [one, two] * 10))
    assert [environment["DB_URL"] for environment in found] == ["value-of-a", "value-of-b"] * 10


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_one_agent_works_in_two_contexts_at_the_same_time(installation: Installation, mode: str) -> None:
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_BOTH, "teller/hospital-a", mode=mode) as one,
        agents.connect(TOKEN_BOTH, "teller/hospital-b", mode=mode) as two,
    ):
        found = await asyncio.gather(*(agents.environment(client) for client in [one, two] * 10))
    assert [environment["DB_URL"] for environment in found] == ["value-of-a", "value-of-b"] * 10


async def test_the_context_may_stand_in_a_header(installation: Installation) -> None:
    async with gateway(installation) as agents:
        async with agents.client(TOKEN_BOTH, **{"Keyfob-Context": "hospital-b"}) as http:
            await http.post("/mcp/teller", json=opening(), headers={"Accept": "application/json, text/event-stream"})
        assert installation.asked[-1].context == "hospital-b"


async def test_choices_are_passed_on(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.client(TOKEN_A, **{"Keyfob-Choice": "DB_URL=some/name"}) as http:
        await http.post("/mcp/teller", json=opening())
        assert installation.asked[-1].choices == {"DB_URL": "some/name"}


@pytest.mark.parametrize("mode", [LEGACY, "auto"])
async def test_an_agent_reads_why_it_was_refused_and_what_to_choose_from(installation: Installation, mode: str) -> None:
    installation.refuse_all = ChoiceNeeded("Name a context.", ("hospital-a", "hospital-b"))
    async with gateway(installation) as agents:
        with pytest.raises(BaseException) as refused:  # noqa: PT011 - the SDK wraps it in groups
            async with agents.connect(TOKEN_BOTH, mode=mode):
                pass
    error = first_leaf(refused.value)
    assert isinstance(error, MCPError)
    assert error.message == "Name a context."
    assert error.data["choices"] == ["hospital-a", "hospital-b"]


async def test_the_child_has_the_environment_of_the_definition_and_nothing_else(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_GATEWAY", "x")
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        found = await agents.environment(client)
    found.pop("LC_CTYPE", None)  # Python itself sets it where there is no locale (PEP 538)
    assert found == {"GREETING": "hello", "DB_URL": "value-of-a"}


async def test_no_argument_of_any_process_holds_the_value(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        pid = await agents.ask(client, "pid")
        assert int(pid) in processes_with(b"value-of-a", "environ"), "this search can find it"
        assert not processes_with(b"value-of-a", "cmdline")


async def test_the_child_works_in_an_empty_directory_of_its_own_that_goes_with_it(installation: Installation) -> None:
    async with gateway(installation) as agents:
        async with agents.connect(TOKEN_A) as one, agents.connect(TOKEN_B) as two:
            mine, theirs = await agents.ask(one, "directory"), await agents.ask(two, "directory")
        assert mine != theirs
        assert mode_and_content(mine) == (0o700, [])
    assert mode_and_content(mine) is None


async def test_connections_of_one_agent_share_a_process_and_agents_never_do(installation: Installation) -> None:
    installation.tokens["newer-token-of-a"] = installation.tokens[TOKEN_A]
    async with gateway(installation) as agents:
        pids = []
        for token in (TOKEN_A, TOKEN_A, "newer-token-of-a", TOKEN_B):
            async with agents.connect(token) as client:
                pids.append(await agents.ask(client, "pid"))
    assert pids[0] == pids[1] == pids[2] != pids[3]
    assert len(installation.asked) == 3, "each token is resolved once"


async def test_contexts_never_share_a_process_even_where_they_share_a_reference(
    installation: Installation, first: Reference
) -> None:
    installation.tokens[TOKEN_BOTH].contexts["hospital-b"] = {"DB_URL": first}
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_BOTH, "teller/hospital-a") as one,
        agents.connect(TOKEN_BOTH, "teller/hospital-b") as two,
    ):
        assert await agents.ask(one, "pid") != await agents.ask(two, "pid")


async def test_many_first_requests_at_once_start_one_process(installation: Installation) -> None:
    async def one() -> str:
        async with agents.connect(TOKEN_A, mode=MODERN) as client:
            return await agents.ask(client, "pid")

    async with gateway(installation) as agents:
        assert len(set(await asyncio.gather(*(one() for _ in range(8))))) == 1
    assert len(installation.asked) == 1


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_the_handshake_shows_the_servers_own_abilities(installation: Installation, mode: str) -> None:
    async with (
        gateway(installation) as agents,
        agents.connect(TOKEN_A, mode="auto" if mode == MODERN else mode) as client,
    ):
        assert client.instructions == "Ask what you were given."
        capabilities = client.server_capabilities
        assert capabilities.tools is not None
        assert capabilities.prompts is not None
        assert capabilities.resources is None
        assert (await client.list_prompts()).prompts[0].name == "greet"
        assert (await client.get_prompt("greet")).messages


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_errors_of_the_server_reach_the_agent(installation: Installation, mode: str) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        assert (await client.call_tool("no-such-tool")).is_error
        with pytest.raises(MCPError) as unknown:
            await client.list_resources()
        assert unknown.value.code == -32601


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_progress_reaches_the_agent(installation: Installation, mode: str) -> None:
    seen: list[tuple[float, float | None]] = []

    async def progress(value: float, total: float | None, message: str | None) -> None:
        seen.append((value, total))

    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        result = await client.call_tool("slow", {"steps": 3, "pause": 0.01}, progress_callback=progress)
        assert said(result) == "done"
        await until(lambda: len(seen) == 3)
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_a_cancelled_call_is_cancelled_at_the_server(
    installation: Installation, mode: str, tmp_path: Path
) -> None:
    marker = tmp_path / "cancelled"
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        call = asyncio.create_task(client.call_tool("slow", {"steps": 1000, "pause": 0.01, "marker": str(marker)}))
        await until(lambda: any(running.calls for running in agents.seats._seats.values()))
        await asyncio.sleep(0.05)  # the request is on its way to the child
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(marker.exists)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_the_server_sees_nothing_of_the_leg_between_agent_and_gateway(
    installation: Installation, mode: str
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        meta = json.loads(said(await client.call_tool("meta", {}, meta={"mine": 1})))
    assert meta.pop("mine") == 1
    assert not [key for key in meta if key.startswith("io.modelcontextprotocol/")]
    assert TOKEN_A not in json.dumps(meta)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_an_answer_that_breaks_the_protocol_is_an_error_that_quotes_nothing(
    installation: Installation, mode: str
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        with pytest.raises(MCPError) as broken:
            await client.call_tool("garbage")
        assert "not a list" not in str(broken.value)
        assert await agents.ask(client, "pid"), "the next call works"


async def test_a_session_that_is_closed_can_be_opened_again(installation: Installation) -> None:
    async with gateway(installation) as agents:
        for _ in range(3):
            async with agents.connect(TOKEN_A, mode=LEGACY) as client:
                assert int(await agents.ask(client, "pid")) != os.getpid()


def mode_and_content(directory: str) -> tuple[int, list[Path]] | None:
    path = Path(directory)
    return (path.stat().st_mode & 0o777, list(path.iterdir())) if path.exists() else None


def processes_with(text: bytes, file: str) -> set[int]:
    found = set()
    for path in Path("/proc").glob(f"[0-9]*/{file}"):
        with suppress(OSError):
            if text in path.read_bytes():
                found.add(int(path.parent.name))
    return found


def opening(version: str = "2025-11-25") -> dict[str, object]:
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }


def first_leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
