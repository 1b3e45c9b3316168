"""One running MCP server, with the values of one subject: started, called, drained, stopped. One task owns it.

States only move forward: starting → open → draining → stopping → gone. `gone` is reported once, when the process
group or the connection that held the values does not exist any more.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import structlog
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION, Implementation

from services.gateway import processes, stdio, streamable
from services.gateway.files import ValueFiles
from services.gateway.redaction import Guess, Redaction, Secret
from services.gateway.sandboxes import Sandbox
from shared.config import Mode
from shared.crypto.secret import SecretBytes
from shared.errors import Unavailable
from shared.events.definitions import FileField, HttpServer, StdioServer
from shared.variables import is_reserved_variable

LEAVE_S: Final = 1.0
"""For a connection's end: nothing is sent any more, and what is left to do must not depend on the server."""
NO_FILES: Final = ValueFiles(None)
CLIENT: Final = Implementation(name="keyfob-gateway", version="0.1.0")

_log = structlog.get_logger(__name__)


class State(Enum):
    """Where an upstream is in its life."""

    STARTING = auto()
    OPEN = auto()
    DRAINING = auto()
    STOPPING = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How upstreams are run. Times in seconds, sizes in bytes."""

    start_s: float
    stop_s: float
    drain_s: float
    line_limit: int
    command_path: str
    scratch_dir: Path | None = None
    sandbox: Sandbox | None = None
    files: ValueFiles = NO_FILES
    allowed_variables: frozenset[str] = frozenset()
    """Reserved ones that this gateway gives to servers all the same."""
    mode: Mode = Mode.PRODUCTION
    transport: httpx2.AsyncBaseTransport | None = None
    """Instead of the network, for servers elsewhere."""


class Ended(Exception):
    """Raised in a call whose upstream, or whose right to it, ended while it ran."""


class Upstream:
    """See the module. `values` are taken over and wiped by it."""

    def __init__(self, definition: StdioServer | HttpServer, values: Mapping[str, SecretBytes], limits: Limits) -> None:
        self._definition = definition
        self._values = dict(values)
        self._limits = limits
        self._stop = asyncio.Event()
        self._connection = anyio.CancelScope()
        self._ready: asyncio.Future[ClientSession] = asyncio.get_running_loop().create_future()
        self._child: processes.Child | None = None
        self._redaction: Redaction | None = None
        self._grace_s = limits.stop_s
        self._calls = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._drainer: asyncio.Task[None] | None = None
        self.state = State.STARTING
        self.last_used = asyncio.get_running_loop().time()

    @property
    def takes_calls(self) -> bool:
        """Whether a new call may go to it."""
        return self.state in {State.STARTING, State.OPEN}

    @property
    def idle_for(self) -> float:
        """Seconds since the last call ended; 0 while one runs, or the server starts."""
        return (
            0.0 if self._calls or self.state is State.STARTING else asyncio.get_running_loop().time() - self.last_used
        )

    async def run(self) -> None:
        """Live until stopped. Returns when nothing holds the values any more; never raises."""
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - a server may fail in any way; texts may quote what it said
            self._fail(error)
        finally:
            self.state = State.GONE
            self._wipe()
            if self._redaction is not None:
                self._redaction.wipe()
            self._fail(Unavailable("The MCP server ended."))

    def drain(self, within_s: float) -> None:
        """No new calls; running ones may finish within the drain time, so that it is gone in `within_s` seconds."""
        if self.takes_calls:
            self.state = State.DRAINING
            left_s = within_s - self._limits.stop_s
            if left_s <= 0:
                self.kill()
            else:
                self._drainer = asyncio.create_task(self._drain(min(self._limits.drain_s, left_s)), name="drain")

    def stop(self) -> None:
        """End it, politely: SIGTERM, a grace, SIGKILL."""
        if self.state not in {State.STOPPING, State.GONE}:
            self.state = State.STOPPING
            self._stop.set()
            self._connection.deadline = min(self._connection.deadline, anyio.current_time() + LEAVE_S)

    def kill(self) -> None:
        """End it at once: the process group gets SIGKILL, and requests are cancelled, before this returns."""
        self._grace_s = 0.0
        # Not left to the task that owns it, which may be busy: SIGKILL is out when this returns.
        if self._child is not None:
            self._child.kill()
        self.stop()
        # A request may be waiting for its connection, with the value in hand.
        self._connection.cancel()

    async def ready(self) -> None:
        """Wait for the handshake; `Unavailable` when the server did not start."""
        await asyncio.shield(self._ready)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[ClientSession]:
        """The session, for one call; `Unavailable` when the server did not start."""
        # Counted before it is ready: who waits for the start keeps the server from looking idle.
        self._calls += 1
        self._quiet.clear()
        try:
            yield await asyncio.shield(self._ready)
        finally:
            self._calls -= 1
            self.last_used = asyncio.get_running_loop().time()
            if not self._calls:
                self._quiet.set()

    def guesses(self, arguments: bytes) -> tuple[str, ...]:
        """Fields whose value a caller's JSON holds; none once the server is gone."""
        if self._redaction is None or self.state is State.GONE:
            return ()
        match self._redaction.examine(arguments):
            case Guess(fields):
                return fields
            case _:
                return ()

    def take_redacted(self) -> dict[str, int]:
        """Replaced places by field since the last time."""
        return {} if self._redaction is None else self._redaction.take_counts()

    async def _live(self) -> None:
        if self._stop.is_set():
            # Ended between the resolve and this first step: nothing may be given the value any more.
            return
        secrets = [Secret(name, value) for name, value in self._values.items()]
        # In a thread: a long value takes a second, and other people's calls go on.
        self._redaction = redaction = await asyncio.to_thread(Redaction, secrets)
        if self._stop.is_set():
            return
        if redaction.unprotected:
            _log.warning("too short to be redacted", fields=redaction.unprotected)
        match self._definition:
            case StdioServer():
                await self._live_as_child(self._definition, redaction)
            case HttpServer():
                await self._live_elsewhere(self._definition, redaction)

    async def _live_as_child(self, definition: StdioServer, redaction: Redaction) -> None:
        _check_variables(definition, self._limits.allowed_variables)
        files = await self._put_files(definition)
        try:
            environment = {**definition.environment, **self._environment(definition, files)}
            launch = processes.Launch(
                command=definition.command,
                args=definition.args,
                environment=environment,
                sandbox=self._limits.sandbox,
                files=files,
                command_path=self._limits.command_path,
                scratch_dir=self._limits.scratch_dir,
                line_limit=self._limits.line_limit,
            )
            self._child = await processes.start(launch, redaction.stderr())
            # Python can't wipe text; nothing of ours keeps it any longer than the kernel needed.
            environment.clear()
            self._wipe()
            async with stdio.speak(self._child, redaction, on_silence=self.stop) as (incoming, outgoing):
                await self._serve(ClientSession(incoming, outgoing, client_info=CLIENT))
        finally:
            if self._child is not None:
                await _finish(self._child.end(grace_s=self._grace_s))
            if files is not None:
                shutil.rmtree(files, ignore_errors=True)

    async def _live_elsewhere(self, definition: HttpServer, redaction: Redaction) -> None:
        credentials = tuple(
            streamable.Credential(one.header, one.prefix, self._values[one.name]) for one in definition.fields
        )
        connection = streamable.connect(
            definition.url,
            credentials,
            redaction,
            mode=self._limits.mode,
            on_silence=self.stop,
            ended=self._stop.is_set,
            body_limit=self._limits.line_limit,
            transport=self._limits.transport,
        )
        with self._connection:
            async with connection as (incoming, outgoing):
                try:
                    await self._serve(ClientSession(incoming, outgoing, client_info=CLIENT))
                finally:
                    # However it ended, leaving has its bound.
                    self.stop()

    async def _serve(self, session: ClientSession) -> None:
        async with session:
            # Beside the stop and not before it: a revocation must not wait for a server that thinks about its
            # handshake.
            opening = asyncio.create_task(_shake_hands(session))
            stopped = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait(
                    {opening, stopped}, timeout=self._limits.start_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not opening.done():
                    raise Unavailable("The MCP server did not answer its handshake.")
                opening.result()
                if self.state is State.STARTING:
                    self.state = State.OPEN
                    self.last_used = asyncio.get_running_loop().time()
                if not self._ready.done():
                    self._ready.set_result(session)
                await stopped
            finally:
                await _cancel(opening, stopped)

    async def _drain(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        self.stop()

    async def _put_files(self, definition: StdioServer) -> Path | None:
        values = {one.name: self._values[one.name] for one in definition.fields if isinstance(one, FileField)}
        return await asyncio.to_thread(self._limits.files.put, values) if values else None

    def _environment(self, definition: StdioServer, files: Path | None) -> dict[str, str]:
        """Paths, and values as text; bytes that are not UTF-8 reach the child as they are (PEP 383)."""
        found = {}
        for field in definition.fields:
            if isinstance(field, FileField):
                found[field.name] = f"{files}/{field.name}"
                continue
            with self._values[field.name].reveal() as view:
                found[field.name] = bytes(view).decode(errors="surrogateescape")
            # execve(2) would cut it there without a word.
            if "\0" in found[field.name]:
                raise Unavailable(f"The value of {field.name} holds a NUL, which no environment variable can carry.")
        return found

    def _wipe(self) -> None:
        for value in self._values.values():
            value.wipe()

    def _fail(self, error: Exception) -> None:
        if self._ready.done():
            return
        # Task groups wrap what is raised below them.
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        known = error if isinstance(error, Unavailable) else Unavailable("The MCP server did not start.")
        if known is not error:
            _log.warning("upstream failed", error=type(error).__name__)
        self._ready.set_exception(known)
        # Nobody may be waiting for it.
        self._ready.exception()


def _check_variables(definition: StdioServer, allowed: frozenset[str]) -> None:
    """Policy refuses these too; a gateway does not run what changes how it runs because somebody signed it."""
    for name in sorted({*definition.environment, *(field.name for field in definition.fields)} - allowed):
        if is_reserved_variable(name):
            raise Unavailable(
                f"The variable {name} changes how a process runs and is not allowed on this gateway "
                "(KEYFOB_GATEWAY_ALLOWED_VARIABLES)."
            )


async def _shake_hands(session: ClientSession) -> None:
    """The handshake of the revisions up to 2025-11-25, or discovery where the server knows nothing older."""
    try:
        await session.initialize()
    except MCPError as error:
        if error.code != UNSUPPORTED_PROTOCOL_VERSION:
            raise
        await session.discover()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _finish(ending: Any) -> None:
    """Run to the end even if the owner is cancelled: a child that is not reaped holds the value."""
    with anyio.CancelScope(shield=True):
        await ending
