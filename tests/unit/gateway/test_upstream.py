"""One running server: who may call it, how it ends, and that a value is never handed out after its end was decided."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest

from services.gateway.upstream import Limits, State, Upstream
from shared.config import Mode
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable
from shared.events.definitions import HeaderField, HttpServer, StdioServer
from tests.fakes.agent_side import teller
from tests.waiting import until

LIMITS = Limits(
    start_s=5, stop_s=0.3, drain_s=5, line_limit=1 << 20, command_path="/usr/bin:/bin", mode=Mode.DEVELOPMENT
)
WRITER = "import os, pathlib; pathlib.Path({path!r}).write_text('it ran'); import time; time.sleep(600)"


def values() -> dict[str, SecretBytes]:
    return {"DB_URL": SecretBytes(b"value")}


def limits(**more: object) -> Limits:
    fields = {name: getattr(LIMITS, name) for name in Limits.__slots__}
    return Limits(**(fields | more))


@asynccontextmanager
async def living(upstream: Upstream) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(upstream.run())
    try:
        yield task
    finally:
        upstream.kill()
        await task


async def test_it_opens_takes_calls_and_is_gone_when_stopped() -> None:
    given = values()
    upstream = Upstream(teller(), given, LIMITS)
    assert (upstream.state, upstream.takes_calls, upstream.idle_for) == (State.STARTING, True, 0.0)
    async with living(upstream) as life:
        await upstream.ready()
        assert upstream.state is State.OPEN
        assert given["DB_URL"].wiped, "the child has it; nobody else needs it any more"
        async with upstream.call() as session:
            assert (await session.list_tools()).tools
            assert upstream.idle_for == 0.0
        upstream.stop()
        await life
    assert (upstream.state, upstream.takes_calls) == (State.GONE, False)


@pytest.mark.parametrize("end", [Upstream.kill, Upstream.stop])
async def test_what_is_ended_before_it_runs_never_starts(end: Callable[[Upstream], None]) -> None:
    """A notice may end the lease between the answer and the first step of the server's own task."""
    given = values()
    upstream = Upstream(teller(), given, LIMITS)
    end(upstream)
    await upstream.run()
    assert upstream._child is None, "no process was given the value"
    assert given["DB_URL"].wiped
    with pytest.raises(Unavailable):
        await upstream.ready()


async def test_a_server_elsewhere_that_is_ended_before_it_runs_gets_no_request() -> None:
    seen: list[httpx2.Request] = []
    transport = httpx2.MockTransport(lambda request: seen.append(request) or httpx2.Response(200))
    definition = HttpServer(url="http://127.0.0.1:9/mcp", fields=(HeaderField(name="DB_URL", header="A"),))
    upstream = Upstream(definition, values(), limits(transport=transport))
    upstream.kill()
    await upstream.run()
    assert seen == []


async def test_states_only_move_forward() -> None:
    upstream = Upstream(teller(), values(), LIMITS)
    async with living(upstream) as life:
        await upstream.ready()
        upstream.stop()
        upstream.drain(60)
        assert upstream.state is State.STOPPING
        await life
        upstream.stop()
        upstream.drain(60)
        upstream.kill()
    assert upstream.state is State.GONE


async def test_while_it_drains_running_calls_finish_and_then_it_goes() -> None:
    upstream = Upstream(teller(), values(), LIMITS)
    async with living(upstream) as life:
        await upstream.ready()
        async with upstream.call() as session:
            upstream.drain(60)
            assert not upstream.takes_calls
            assert (await session.list_tools()).tools, "this call goes on"
            assert upstream.state is State.DRAINING
        await life


async def test_a_call_that_never_ends_is_not_waited_for_longer_than_the_drain_time() -> None:
    upstream = Upstream(teller(), values(), limits(drain_s=0.05))
    async with living(upstream) as life:
        await upstream.ready()
        async with upstream.call():
            upstream.drain(60)
            await life
    assert upstream.state is State.GONE


async def test_a_drain_ends_where_others_count_on_it_although_the_drain_time_is_longer() -> None:
    upstream = Upstream(teller("--stubborn"), values(), limits(drain_s=3600, stop_s=0.05))
    async with living(upstream) as life:
        await upstream.ready()
        async with upstream.call():
            upstream.drain(0.1)
            await life
    assert upstream.state is State.GONE


async def test_where_not_even_the_grace_fits_a_drain_is_a_kill() -> None:
    upstream = Upstream(teller("--stubborn"), values(), limits(drain_s=3600, stop_s=3600))
    async with living(upstream) as life:
        await upstream.ready()
        async with upstream.call():
            upstream.drain(3600)
            await life
    assert upstream.state is State.GONE


async def test_a_kill_does_not_wait_for_a_grace_that_a_stop_has_given() -> None:
    upstream = Upstream(teller("--stubborn"), values(), limits(stop_s=60))
    async with living(upstream) as life:
        await upstream.ready()
        upstream.stop()
        await asyncio.sleep(0.05)
        upstream.kill()
        async with asyncio.timeout(5):
            await life


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (StdioServer(command="no-such-program", fields=teller().fields), "not installed"),
        (teller("--mute"), "handshake"),
    ],
)
async def test_why_a_server_did_not_start_is_said(definition: StdioServer, words: str) -> None:
    upstream = Upstream(definition, values(), limits(start_s=0.2))
    async with living(upstream):
        with pytest.raises(Unavailable) as failed:
            await upstream.ready()
        assert words in failed.value.detail


async def test_a_failure_of_another_kind_is_told_without_its_text() -> None:
    """Errors of libraries quote what was sent or received."""
    upstream = Upstream(HttpServer(url="http://127.0.0.1:9/mcp"), {}, limits(transport=Broken()))
    async with living(upstream):
        with pytest.raises(Unavailable) as failed:
            await upstream.ready()
    assert "secret" not in failed.value.detail
    assert failed.value.__cause__ is None


class Broken(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise RuntimeError("secret")


async def test_nobody_needs_to_wait_for_a_server_that_fails(recwarn: pytest.WarningsRecorder) -> None:
    upstream = Upstream(StdioServer(command="no-such-program"), {}, LIMITS)
    await upstream.run()
    del upstream
    assert not recwarn.list, "no exception that was never retrieved"


async def test_idle_time_is_counted_from_the_last_call() -> None:
    upstream = Upstream(teller(), values(), LIMITS)
    async with living(upstream):
        await upstream.ready()
        await until(lambda: upstream.idle_for > 0)
        async with upstream.call():
            assert upstream.idle_for == 0
        assert upstream.idle_for < 0.05
