"""MCP over the pipes of a child process: newline-delimited JSON-RPC, one message a line.

The SDK's own stdio client is not used, because it gives every child some of this process's environment, waits for
seconds before it kills, and logs lines that it can't parse. Framing and limits follow the specification's stdio
transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import structlog
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from services.gateway.processes import Child
from services.gateway.redaction import Redaction

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def speak(
    child: Child, redaction: Redaction, *, on_silence: Callable[[], None]
) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """The streams of a session with `child`; `on_silence` is called once it can't be spoken to any more.

    What it says arrives redacted: results, errors and notifications alike.

    Leaving does not end the child: whoever started it does.
    """
    # Without a buffer: a server that floods is held up by its own pipe, not kept in our memory.
    arrived, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    async with arrived, incoming, outgoing, leaving, anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, child, redaction, arrived, on_silence)
        tasks.start_soon(_talk, child, leaving, on_silence)
        try:
            yield incoming, outgoing
        finally:
            tasks.cancel_scope.cancel()


async def _listen(
    child: Child,
    redaction: Redaction,
    arrived: MemoryObjectSendStream[SessionMessage | Exception],
    on_silence: Callable[[], None],
) -> None:
    unreadable = 0
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        async with arrived:
            async for line in _lines(child):
                try:
                    # The whole line before anything reads it: an error's words, a progress message, whatever comes.
                    message = jsonrpc_message_adapter.validate_json(redaction.message(line), by_name=False)
                except ValueError:
                    # Servers print banners and debug text where they must not. Counted: it may quote anything.
                    unreadable += 1
                    continue
                await arrived.send(SessionMessage(message))
    if unreadable:
        _log.info("lines were not messages", pid=child.pid, lines=unreadable)
    # A server whose output ended answers nobody: its calls must not wait for a time limit.
    on_silence()


async def _lines(child: Child) -> AsyncIterator[bytes]:
    stdout = child.process.stdout
    while stdout is not None:
        try:
            line = await stdout.readline()
        # asyncio drops what it could not take, so what follows would begin in the middle of a message.
        except ValueError:
            _log.warning("message too long", pid=child.pid)
            return
        if not line:
            return
        if line.strip():
            yield line


async def _talk(
    child: Child, leaving: MemoryObjectReceiveStream[SessionMessage], on_silence: Callable[[], None]
) -> None:
    stdin = child.process.stdin
    with suppress(OSError, anyio.ClosedResourceError, asyncio.IncompleteReadError):
        async for outgoing in leaving:
            if stdin is None:
                break
            stdin.write(outgoing.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await stdin.drain()
    on_silence()
