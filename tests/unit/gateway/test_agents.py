"""What an agent experiences: the real SDK on both sides, real child processes, a fake installation behind."""

from __future__ import annotations

import pytest

from tests.fakes.agent_side import gateway, teller
from tests.fakes.installation import Allowed, Installation, Reference

TOKEN_A, TOKEN_B = "token-of-a", "token-of-b"


@pytest.fixture
def installation() -> Installation:
    made = Installation()
    made.define("teller", teller())
    first, second = Reference("reference/a", b"value-of-a"), Reference("reference/b", b"value-of-b")
    made.tokens[TOKEN_A] = Allowed("agent-a", {"hospital-a": {"DB_URL": first}})
    made.tokens[TOKEN_B] = Allowed("agent-b", {"hospital-b": {"DB_URL": second}})
    return made


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_an_agent_reaches_its_server_with_its_own_value(installation: Installation, mode: str) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        tools = await client.list_tools()
        assert "environment" in {tool.name for tool in tools.tools}
        assert (await agents.environment(client))["DB_URL"] == "value-of-a"
