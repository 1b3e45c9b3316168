"""A server that says its credentials aloud: what the agent gets, what stands on record, what is left as it was."""

from __future__ import annotations

import json
from base64 import b64encode
from urllib.parse import quote

import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult

from services.gateway.refusals import REFUSED
from shared.events.receipts import Finding, FindingKind
from tests.fakes.agent_side import Agents, gateway
from tests.fakes.hospitals import TOKEN_A
from tests.fakes.installation import Installation, Reference
from tests.fakes.stdio_server import ENCODINGS
from tests.waiting import until

LEGACY, MODERN = "legacy", "2026-07-28"
PASSWORD = 'p@ss/wörd+"quoted"\\&%'
URL = f"postgresql://nurse:{quote(PASSWORD, safe='')}@db.hospital.test/patients"
SECRET = "sk-live-51H8x/Zq+0=~ü"


@pytest.fixture
def secret(first: Reference) -> Reference:
    first.value = SECRET.encode()
    return first


@pytest.fixture
def url(first: Reference) -> Reference:
    first.value = URL.encode()
    return first


def found(installation: Installation) -> list[Finding]:
    return [finding for receipt in installation.receipts for finding in receipt.findings]


def writings(value: str) -> set[str]:
    """What must not stand anywhere in an answer, whatever wrote it."""
    return {
        value,
        json.dumps(value)[1:-1],
        value.encode().hex(),
        quote(value, safe=""),
        b64encode(value.encode()).decode(),
    }


def holds(answer: CallToolResult | str, value: str) -> list[str]:
    text = answer if isinstance(answer, str) else answer.model_dump_json()
    return [one for one in writings(value) if one in text or json.dumps(one)[1:-1] in text]


async def echo(client: Client, where: str, encoding: str = "plain") -> CallToolResult:
    return await client.call_tool("echo", {"where": where, "as": encoding})


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.usefixtures("secret")
async def test_in_a_result_the_value_is_replaced_in_every_listed_encoding(
    installation: Installation, encoding: str
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        answer = await echo(client, "result", encoding)
    assert not holds(answer, SECRET)
    assert "[redacted]" in answer.model_dump_json()
    assert "GREETING=" in answer.model_dump_json(), "the rest is there"


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
@pytest.mark.parametrize("where", ["result", "structure", "tool error"])
@pytest.mark.usefixtures("url")
async def test_of_a_url_the_password_goes_and_user_and_host_stay(
    installation: Installation, where: str, mode: str
) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        answer = await echo(client, where)
    assert not holds(answer, PASSWORD)
    assert not holds(answer, URL)
    assert answer.is_error == (where == "tool error")


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
@pytest.mark.usefixtures("secret")
async def test_a_protocol_error_is_redacted_with_its_data(installation: Installation, mode: str) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A, mode=mode) as client:
        with pytest.raises(MCPError) as failed:
            await echo(client, "error")
    said = json.dumps([failed.value.message, failed.value.data])
    assert "[redacted]" in failed.value.message
    assert not holds(said, SECRET)
    assert failed.value.data["environment"]["DB_URL"] == "[redacted]"
    assert failed.value.data["environment"]["GREETING"] == "hello"


@pytest.mark.usefixtures("secret")
async def test_on_stderr_it_is_found_though_it_comes_in_pieces(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        await echo(client, "stderr")
        (finding,) = await until(lambda: found(installation), what="also when nobody calls any more")
    assert (finding.kind, finding.places) == (FindingKind.REDACTED, 1)


@pytest.mark.usefixtures("secret")
async def test_receipts_say_how_often_under_which_lease_and_never_what(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        for _ in range(3):
            await echo(client, "result")
        (seat,) = agents.seats._seats.values()
        await until(lambda: sum(one.places for one in found(installation)) == 3)
        assert {one.lease_id for one in found(installation)} == set(seat.holding.lease_ids)
    assert not [message for message in installation.messages if holds(message.value.decode(), SECRET)]


@pytest.mark.parametrize("size", [1, 4096, 200_000])
async def test_what_holds_no_value_passes_as_it_is(installation: Installation, size: int) -> None:
    text = '\u00fc\\n\\" [redacted] value-of value-of- sk-live \U0001f3e5 ' * (size // 40 + 1)
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        assert await agents.ask(client, "repeat", text=text) == text
    assert found(installation) == []


async def guess(agents: Agents, client: Client) -> str:
    return await agents.ask(client, "repeat", text=f"is it {SECRET}?")


@pytest.mark.usefixtures("secret")
async def test_a_value_that_the_caller_supplies_is_an_alarm(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        assert await guess(agents, client) == "is it [redacted]?"
        await until(lambda: len(found(installation)) == 2)
    assert {one.kind for one in found(installation)} == {FindingKind.REDACTED, FindingKind.GUESSED}


@pytest.mark.usefixtures("secret")
async def test_where_that_is_wanted_a_guess_does_not_reach_the_server_and_ends_it(installation: Installation) -> None:
    async with gateway(installation, end_on_guess=True) as agents, agents.connect(TOKEN_A, mode=MODERN) as client:
        pid = await agents.ask(client, "pid")
        with pytest.raises(MCPError) as ended:
            await guess(agents, client)
        assert ended.value.code == REFUSED
        await until(lambda: len(agents.seats) == 0)
        assert await agents.ask(client, "pid") != pid
    assert [one.kind for one in found(installation)] == [FindingKind.GUESSED]


async def test_when_the_server_is_gone_nothing_can_be_searched_for_any_more(installation: Installation) -> None:
    async with gateway(installation) as agents, agents.connect(TOKEN_A) as client:
        await agents.ask(client, "pid")
        (running,) = agents.seats._alive
        redaction = running.upstream._redaction
    assert redaction is not None
    with pytest.raises(ValueError, match="wiped"):
        redaction.message(b"{}")
