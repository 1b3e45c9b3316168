"""Servers elsewhere: the credential goes into each request to the one place that the definition names."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from functools import partial

import httpx2
import pytest
from mcp import MCPError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from services.gateway.redaction import Redaction, Secret
from services.gateway.streamable import Credential, Injecting, Place, locate
from shared.config import Mode
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable
from shared.events.definitions import HeaderField, HttpServer
from tests.fakes.agent_side import gateway
from tests.fakes.hospitals import TOKEN_A, TOKEN_B
from tests.fakes.http_server import URL, http_teller
from tests.fakes.installation import Installation, Reference
from tests.waiting import until

ELSEWHERE = HttpServer(url=URL, fields=(HeaderField(name="DB_URL", header="Authorization", prefix="Bearer "),))


@pytest.fixture
def installation(installation: Installation) -> Installation:
    installation.define("elsewhere", ELSEWHERE)
    return installation


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_each_agents_requests_carry_its_own_credential(installation: Installation, mode: str) -> None:
    async with (
        http_teller() as (teller, transport),
        gateway(installation, transport=transport) as agents,
        agents.connect(TOKEN_A, "elsewhere", mode=mode) as one,
        agents.connect(TOKEN_B, "elsewhere", mode=mode) as two,
    ):
        assert [tool.name for tool in (await one.list_tools()).tools] == ["headers"]
        for _ in range(3):
            assert (await agents.ask(one, "headers"))[::-1] == "Bearer value-of-a"
            assert (await agents.ask(two, "headers"))[::-1] == "Bearer value-of-b"
    assert all(headers["authorization"] in {"Bearer value-of-a", "Bearer value-of-b"} for headers in teller.seen)
    assert not [headers for headers in teller.seen if TOKEN_A in str(headers) or TOKEN_B in str(headers)]


async def test_the_next_request_after_a_rotation_carries_the_new_value(
    installation: Installation, first: Reference
) -> None:
    async with (
        http_teller() as (_, transport),
        gateway(installation, transport=transport) as agents,
        agents.connect(TOKEN_A, "elsewhere") as client,
    ):
        assert (await agents.ask(client, "headers"))[::-1] == "Bearer value-of-a"
        installation.say(installation.rotate(first, b"newer"))
        await agents.settled()
        assert (await agents.ask(client, "headers"))[::-1] == "Bearer newer"


async def test_a_revocation_leaves_no_value_behind(installation: Installation) -> None:
    async with (
        http_teller() as (_, transport),
        gateway(installation, transport=transport) as agents,
        agents.connect(TOKEN_A, "elsewhere") as client,
    ):
        await agents.ask(client, "headers")
        (seat,) = agents.seats._seats.values()
        installation.say(installation.revoke("grant/hospital-a/agent-a"))
        await agents.settled()
        assert all(value.wiped for value in seat.holding.values.values())


async def test_a_credential_that_the_server_does_not_take_any_more_is_resolved_again(
    installation: Installation,
) -> None:
    async with (
        http_teller() as (teller, transport),
        gateway(installation, transport=transport) as agents,
        agents.connect(TOKEN_A, "elsewhere", mode="2026-07-28") as client,
    ):
        await agents.ask(client, "headers")
        asked = len(installation.asked)
        teller.answers.append(Response(status_code=401))
        with pytest.raises(MCPError):
            await client.call_tool("headers")
        await until(lambda: len(agents.seats) == 0)
        assert (await agents.ask(client, "headers"))[::-1] == "Bearer value-of-a"
        assert len(installation.asked) == asked + 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["http://127.0.0.1:9/other", "http://evil.test/mcp", "/mcp/"])
async def test_redirects_are_not_followed(installation: Installation, status: int, place: str) -> None:
    async with (
        http_teller() as (teller, transport),
        gateway(installation, transport=transport) as agents,
        agents.connect(TOKEN_A, "elsewhere", mode="2026-07-28") as client,
    ):
        await agents.ask(client, "headers")
        count = len(teller.seen)
        teller.answers.append(Response(status_code=status, headers={"Location": place}))
        with pytest.raises(MCPError):
            await client.call_tool("headers")
        assert len(teller.seen) == count + 1


async def test_a_credential_never_goes_to_another_url() -> None:
    sent: list[httpx2.Request] = []
    inner = httpx2.MockTransport(lambda request: sent.append(request) or httpx2.Response(200))
    place = Place(httpx2.URL(URL), httpx2.URL(URL))
    injecting = Injecting(inner, place, (Credential("A", "", SecretBytes(b"x")),), Redaction([]), lambda: None)
    async with httpx2.AsyncClient(transport=injecting) as client:
        with pytest.raises(httpx2.RequestError):
            await client.get("http://127.0.0.1:9/elsewhere")
        await client.get(URL)
    assert [request.headers["a"] for request in sent] == ["x"]


async def test_what_the_server_says_of_its_credential_does_not_come_back(installation: Installation) -> None:
    async with (
        http_teller() as (teller, transport),
        gateway(installation, transport=transport) as agents,
        agents.connect(TOKEN_A, "elsewhere") as client,
    ):
        assert await agents.ask(client, "echo") == "Bearer [redacted]"
        for status in (200, 400, 500):
            teller.answers.append(partial(_fails, status))
            with pytest.raises(MCPError) as failed:
                await client.call_tool("headers")
            assert "value-of-a" not in str((failed.value.message, failed.value.data))
        await until(lambda: any(receipt.findings for receipt in installation.receipts))
    assert all(headers["accept-encoding"] == "identity" for headers in teller.seen)


async def _fails(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """The very request that came, with an error that quotes the credential."""
    asked = await Request(scope, receive).json()
    error = {"code": -32000, "message": "value-of-a", "data": ["value-of-a"]}
    answer = JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error}, status_code=status)
    await answer(scope, receive, send)


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, gzip", "unknown"])
async def test_a_body_that_could_not_be_searched_is_not_passed_on(encoding: str) -> None:
    body = gzip.compress(b'{"said": "value-of-a"}')
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-encoding": encoding}, content=body))
    place = Place(httpx2.URL(URL), httpx2.URL(URL))
    redaction = Redaction([Secret("A", SecretBytes(b"value-of-a"))])
    injecting = Injecting(inner, place, (), redaction, lambda: None)
    async with httpx2.AsyncClient(transport=injecting) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(URL)


@pytest.mark.parametrize("cut", [1, 3, 8, 64])
async def test_a_body_is_redacted_while_it_streams_and_its_length_is_not_what_the_server_said(cut: int) -> None:
    said = b'data: {"a": "value-of-a", "b": "dmFsdWUtb2YtYQ=="}\n\n'

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(said), cut):
            yield said[at : at + cut]

    length = {"content-length": str(len(said))}
    inner = httpx2.MockTransport(lambda _: httpx2.Response(500, headers=length, content=pieces()))
    place = Place(httpx2.URL(URL), httpx2.URL(URL))
    redaction = Redaction([Secret("A", SecretBytes(b"value-of-a"))])
    async with httpx2.AsyncClient(transport=Injecting(inner, place, (), redaction, lambda: None)) as client:
        answer = await client.get(URL)
    assert answer.content.startswith(b'data: {"a": "[redacted]", "b": "[redacted]')
    assert b"value-of-a" not in answer.content
    assert answer.content.endswith(b"\n\n")
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_beyond_the_limit_is_an_error_and_is_not_read_to_its_end(status: int) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 1000:
            given += 1
            yield b" " * 100

    json = {"content-type": "application/json"}
    inner = httpx2.MockTransport(lambda _: httpx2.Response(status, headers=json, content=endless()))
    place = Place(httpx2.URL(URL), httpx2.URL(URL))
    injecting = Injecting(inner, place, (), Redaction([]), lambda: None, body_limit=1000)
    async with httpx2.AsyncClient(transport=injecting) as client:
        with pytest.raises(httpx2.RemoteProtocolError, match="1000 bytes"):
            await client.get(URL)
    assert given == 11


@pytest.mark.parametrize(("kind", "size"), [("application/json", 1000), ("text/event-stream; charset=utf-8", 5000)])
async def test_a_body_up_to_the_limit_and_a_stream_of_events_pass(kind: str, size: int) -> None:
    inner = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=b" " * size))
    place = Place(httpx2.URL(URL), httpx2.URL(URL))
    injecting = Injecting(inner, place, (), Redaction([]), lambda: None, body_limit=1000)
    async with httpx2.AsyncClient(transport=injecting) as client:
        assert len((await client.get(URL)).content) == size


@pytest.mark.parametrize("value", [b"a\r\nEvil: 1", b"a\nb", b"a\0b", b"\x7f", b"a\n", b"\ra", b"a ", b"a\t"])
async def test_a_value_that_no_header_can_carry_is_refused_without_quoting_it(
    installation: Installation, first: Reference, value: bytes
) -> None:
    first.value = value
    async with (
        http_teller() as (teller, transport),
        gateway(installation, transport=transport) as agents,
        agents.client(TOKEN_A) as http,
    ):
        answer = await http.post("/mcp/elsewhere", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert answer.status_code == 503
    assert "Evil" not in answer.text
    assert teller.seen == []


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/mcp", "http://[fe80::1]/mcp", "http://0.0.0.0/mcp", "http://224.0.0.1/mcp"]
)
async def test_addresses_that_nobody_may_reach_are_refused(url: str) -> None:
    with pytest.raises(Unavailable):
        await locate(url, Mode.DEVELOPMENT)


@pytest.mark.parametrize("url", ["https://127.0.0.1/mcp", "http://192.0.2.1/mcp"])
async def test_production_refuses_loopback_and_plain_http(url: str) -> None:
    with pytest.raises(Unavailable):
        await locate(url, Mode.PRODUCTION)


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to() -> None:
    place = await locate("http://localhost:8/mcp?x=1", Mode.DEVELOPMENT)
    assert place.url == httpx2.URL("http://localhost:8/mcp?x=1")
    assert place.pinned.host in {"127.0.0.1", "::1"}
    assert (place.pinned.port, place.pinned.raw_path) == (8, b"/mcp?x=1")
