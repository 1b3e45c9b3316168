"""MCP servers that a test starts, answers for and ends by hand: no process, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from mcp.client.session import ClientSession

from services.gateway.client.instance import Holding
from services.gateway.upstream import Upstream
from shared.errors import Unavailable

SESSION = cast("ClientSession", object())


class FakeUpstream:
    """`Upstream` for whoever only sits on it. `open` and `fail` are what the server does; the rest is its port."""

    def __init__(self, holding: Holding) -> None:
        self.versions = holding.versions
        self.done: list[str] = []
        self.redacted: dict[str, int] = {}
        self.guessable: tuple[str, ...] = ()
        self.calls = 0
        self.takes_calls = True
        self.idle_for = 0.0
        self._gone = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def open(self) -> None:
        """The handshake is done."""
        self._ready.set_result(None)

    def fail(self, detail: str = "The MCP server did not start.") -> None:
        """It ends by itself, before or after its handshake."""
        self._refuse(detail)
        self._gone.set()

    def gone(self) -> None:
        """What drained, stopped or was killed does not exist any more."""
        self._refuse("The MCP server ended.")
        self._gone.set()

    async def run(self) -> None:
        await self._gone.wait()
        self.takes_calls = False

    async def ready(self) -> None:
        await asyncio.shield(self._ready)

    def guesses(self, arguments: bytes) -> tuple[str, ...]:
        return tuple(field for field in self.guessable if field.encode() in arguments)

    def take_redacted(self) -> dict[str, int]:
        taken, self.redacted = self.redacted, {}
        return taken

    def drain(self, within_s: float) -> None:
        self._end("drain")

    def stop(self) -> None:
        self._end("stop")

    def kill(self) -> None:
        self._end("kill")

    @asynccontextmanager
    async def call(self) -> AsyncIterator[ClientSession]:
        self.calls += 1
        try:
            yield SESSION
        finally:
            self.calls -= 1

    def _end(self, how: str) -> None:
        self.takes_calls = False
        self.done.append(how)

    def _refuse(self, detail: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(Unavailable(detail))
            self._ready.exception()


@dataclass
class FakeUpstreams:
    """`StartUpstream`, and all that were ever started. With `by_hand` none opens until the test says so."""

    by_hand: bool = False
    started: list[FakeUpstream] = field(default_factory=list)

    def __call__(self, holding: Holding) -> Upstream:
        made: Any = FakeUpstream(holding)
        self.started.append(made)
        if not self.by_hand:
            made.open()
        return cast("Upstream", made)
