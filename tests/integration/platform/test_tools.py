"""Tool environments: an MCP server that nobody here wrote, with dependencies that aren't ours."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from services.dev.platform import ProcessFailed, Unavailable, plain_environment, tool_environment, tools
from tests.platform_fixtures import Database

pytestmark = pytest.mark.timeout(600)


async def test_mcp_alchemy_answers_from_the_database_it_was_given(database: Database) -> None:
    folder = await tool_environment("mcp-alchemy")
    server = StdioServerParameters(command=str(folder / "mcp-alchemy"), env=plain_environment(DB_URL=database.dsn))
    async with stdio_client(server) as (receive, send), ClientSession(receive, send) as session:
        await session.initialize()
        answer = await session.call_tool("execute_query", {"query": "SELECT current_user AS who"})
    assert not answer.is_error
    assert f"who: {database.owner}" in str(answer.content)


async def test_the_second_call_installs_nothing() -> None:
    first = await tool_environment("mcp-alchemy")
    said: list[str] = []
    assert await tool_environment("mcp-alchemy", say=said.append) == first
    assert said == []


async def test_an_unknown_tool_is_refused_by_name() -> None:
    with pytest.raises(Unavailable, match="no-such-tool; there is mcp-alchemy"):
        await tool_environment("no-such-tool")


@pytest.fixture
def empty_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool whose lock pins nothing, so that installing it needs no network; returns its lock."""
    monkeypatch.setattr(tools, "_LOCKS", tmp_path)
    monkeypatch.setattr(tools, "cache_directory", lambda kind: tmp_path / "cache" / kind)
    lock = tmp_path / "empty.lock"
    lock.write_text("# nothing\n")
    return lock


async def test_two_who_want_it_at_once_make_it_once(empty_tool: Path) -> None:
    said: list[str] = []
    first, second = await asyncio.gather(*(tool_environment("empty", say=said.append) for _ in range(2)))
    assert first == second
    assert (first / "python").exists()
    assert [line.split()[0] for line in said] == ["Installing", "Installed"]


async def test_a_half_made_environment_is_made_again(empty_tool: Path) -> None:
    made = await tool_environment("empty", say=lambda _: None)
    (made.parent / ".complete").unlink()
    (made / "python").unlink()
    assert await tool_environment("empty", say=lambda _: None) == made
    assert (made / "python").exists()


async def test_what_the_lock_does_not_pin_by_hash_is_not_installed(empty_tool: Path) -> None:
    empty_tool.write_text("mcp-alchemy==2026.10.15.202659\n")  # noqa: ASYNC240 - a line
    with pytest.raises(ProcessFailed, match=r"pip for empty ended with 1; its log is .*\.log"):
        await tool_environment("empty", say=lambda _: None)


async def test_without_a_pip_of_ours_the_environment_gets_its_own(
    empty_tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    made = await tool_environment("empty", say=lambda _: None)
    assert (made / "pip").exists()


async def test_its_dependencies_are_not_ours() -> None:
    folder = await tool_environment("mcp-alchemy")
    assert not folder.is_relative_to(Path(sys.prefix))
