"""Values reach a real child byte for byte, by variable or by file, or are refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import pytest
from mcp import MCPError

from services.gateway.files import ValueFiles, usual_places
from tests.fakes.agent_side import Agents, gateway, teller
from tests.fakes.hospitals import TOKEN_A
from tests.fakes.installation import INSTANCE, Installation, Reference
from tests.fakes.stdio_server import described

AWKWARD = {
    "line breaks": b"-----BEGIN KEY-----\nabc\r\n\n-----END KEY-----\n",
    "unicode": "pässwörd-\U0001f3e5-\u202e".encode(),
    "a shell's": b"$(id) `id` ${HOME} $DB_URL ; rm -rf / & | > x",
    "a template's": b"{{DB_URL}} {{ DB_URL }} ${DB_URL} %DB_URL% <DB_URL> {0} %s",
    "quotes": b"\"'\\\"\\'",
    "blanks around": b"  \t value \t ",
    "no text": bytes(range(1, 256)),
    "64 KiB": b"0123456789abcdef" * 4096,
    "an assignment": b"A=B=C",
    "short": b"x",
    "empty": b"",
}
each = pytest.mark.parametrize("value", AWKWARD.values(), ids=AWKWARD)
needs_memory = pytest.mark.skipif(ValueFiles.of("x", usual_places()).root is None, reason="no memory file system")


async def refusal(agents: Agents, target: str = "teller") -> str:
    async with agents.client(TOKEN_A) as http:
        answer: httpx2.Response = await http.post(f"/mcp/{target}", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert answer.status_code == 503
    return str(answer.json()["detail"])


def left() -> list[Path]:
    root = ValueFiles.of(INSTANCE, usual_places()).root
    return [] if root is None or not root.exists() else list(root.iterdir())


@each
async def test_a_variable_holds_the_value_byte_for_byte(
    installation: Installation, first: Reference, value: bytes
) -> None:
    first.value = value
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        assert await agents.ask(client, "given", name="DB_URL") == described(value)


@needs_memory
@each
async def test_a_file_holds_it_byte_for_byte_and_only_its_owner_may_read_it(
    installation: Installation, first: Reference, value: bytes
) -> None:
    first.value = value + b"\0"
    installation.define("teller", teller(fields=(), files=("DB_URL",)))
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        assert await agents.ask(client, "given", name="DB_URL", file=True) == f"{described(first.value)} 400 700"
        assert len(left()) == 1
    assert left() == []


@needs_memory
async def test_the_file_goes_with_a_server_that_crashes_or_is_killed(installation: Installation) -> None:
    installation.define("teller", teller(fields=(), files=("DB_URL",)))
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        with pytest.raises(MCPError):
            await agents.ask(client, "crash")
        await agents.ask(client, "pid")
        assert len(left()) == 1
        installation.say(installation.revoke("grant/hospital-a/agent-a"))
        await agents.settled()
        assert left() == []


@needs_memory
async def test_a_server_that_never_starts_leaves_no_file(installation: Installation) -> None:
    definition = teller(fields=(), files=("DB_URL",)).model_copy(update={"command": "no-such-program"})
    installation.define("teller", definition)
    async with gateway(installation) as agents:
        assert "not installed" in await refusal(agents)
        assert left() == []


async def test_a_nul_is_refused_and_not_cut_off(installation: Installation, first: Reference) -> None:
    first.value = b"first-half\0second-half"
    async with gateway(installation) as agents:
        said = await refusal(agents)
    assert said == "The value of DB_URL holds a NUL, which no environment variable can carry."


async def test_a_value_that_is_too_long_for_a_variable_is_refused_with_the_way_out(
    installation: Installation, first: Reference
) -> None:
    first.value = os.urandom(150_000).hex().encode()
    async with gateway(installation) as agents:
        assert "as a file" in await refusal(agents)


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "PYTHONSTARTUP", "NODE_OPTIONS", "HTTPS_PROXY", "https_proxy"])
async def test_a_gateway_looks_again_at_reserved_variables(
    installation: Installation, first: Reference, name: str
) -> None:
    installation.define("teller", teller(fields=(name,)))
    installation.tokens[TOKEN_A].contexts["hospital-a"] = {name: first}
    async with gateway(installation) as agents:
        assert f"The variable {name} changes how a process runs" in await refusal(agents)


async def test_one_that_is_allowed_by_name_is_given(installation: Installation, first: Reference) -> None:
    installation.define("teller", teller(fields=("NODE_OPTIONS",)))
    installation.tokens[TOKEN_A].contexts["hospital-a"] = {"NODE_OPTIONS": first}
    async with (
        gateway(installation, allowed_variables=frozenset({"NODE_OPTIONS"})) as agents,
        agents.connect(TOKEN_A) as client,
    ):
        assert await agents.ask(client, "given", name="NODE_OPTIONS") == described(first.value)
