"""One open stream of notices: from a place on, as long as its instance may act, never faster than it is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.resolver.https_only.feed import Gone, NoticeFeed

LOOK_AGAIN_S: Final = 0.25
"""How often a stream asks whether its instance may still act, and so how late one ends after a ban."""
IDLE_S: Final = 10.0
"""Silence after which a comment is sent, so that nothing on the way takes the connection for dead."""
WRITE_WITHIN_S: Final = 10.0
"""A reader that takes nothing for so long is cut."""
AHEAD_S: Final = 5.0
"""How long a place that this replica has not reached is believed to be another replica's."""
MOST_AT_ONCE: Final = 50
"""Events that are written together: then whether its instance may still act is asked again."""
STREAMS_EACH: Final = 4
"""Of one instance; a further one ends the oldest, which may hang on a connection that nobody closed."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Ends one stream from outside."""

    event: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Streams:
    """The open streams of all instances."""

    feed: NoticeFeed
    clock: Callable[[], float]
    """Monotonic, in seconds."""
    most: int = STREAMS_EACH
    _open: dict[str, deque[Cut]] = field(default_factory=dict)

    def count(self, instance_id: str) -> int:
        """How many streams of one instance are open."""
        return len(self._open.get(instance_id, ()))

    async def frames(self, instance_id: str, place: int | None, may_act: Callable[[], bool]) -> AsyncGenerator[bytes]:
        """Events behind `place`, or from the newest tick on, until the instance may not act any more."""
        # At the first frame and not at the call, as in any generator: an answer never begun takes no place.
        cut = self._enter(instance_id)
        try:
            async for frame in self._follow(place, lambda: may_act() and not cut.event.is_set()):
                yield frame
        finally:
            self._leave(instance_id, cut)

    async def _follow(self, place: int | None, goes_on: Callable[[], bool]) -> AsyncGenerator[bytes]:
        feed = self.feed
        at = feed.beginning() if place is None else place
        began = spoke = self.clock()
        while goes_on() and not feed.closed:
            match feed.after(at):
                case Gone(resume):
                    yield _lost("what should have come next is not kept any more", resume)
                    at = resume
                    spoke = self.clock()
                case []:
                    # Another replica may be ahead of this one, but not for ever: then it was another topic's place.
                    if at > feed.newest and self.clock() - began > AHEAD_S:
                        at = feed.beginning()
                        yield _lost("this place was never reached", at)
                    elif self.clock() - spoke > IDLE_S:
                        yield b":\n\n"
                        spoke = self.clock()
                    await feed.moved(within_s=LOOK_AGAIN_S)
                case news:
                    some = news[:MOST_AT_ONCE]
                    at, spoke = some[-1].offset, self.clock()
                    yield b"".join(told.frame() for told in some)

    def _enter(self, instance_id: str) -> Cut:
        cuts = self._open.setdefault(instance_id, deque())
        while len(cuts) >= self.most:
            cuts.popleft().event.set()
        cuts.append(cut := Cut())
        return cut

    def _leave(self, instance_id: str, cut: Cut) -> None:
        cuts = self._open[instance_id]
        # The oldest was taken out already when it was told to end.
        if cut in cuts:
            cuts.remove(cut)
        if not cuts:
            del self._open[instance_id]


def _lost(reason: str, place: int) -> bytes:
    data = orjson.dumps({"reason": reason, "offset": place})
    return b"id: %d\nevent: lost\ndata: %b\n\n" % (place, data)


class EventStream(Response):
    """A `text/event-stream` that ends when its frames do, its reader leaves, or its reader takes nothing any more."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[bytes], *, abort: Callable[[], None]) -> None:
        # No proxy on the way may gather or keep what must arrive at once.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # Starlette announces the length of the empty body that it was given.
        del self.headers["content-length"]
        self._frames = frames
        self._abort = abort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI event stream."""
        del scope
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            writing.cancel()
            outcomes = await asyncio.gather(writing, leaving, return_exceptions=True)
        # The connection is of no use to anybody: what waits in its buffers will not be read.
        if isinstance(outcomes[0], TimeoutError):
            self._abort()
        elif isinstance(outcomes[0], Exception):
            raise outcomes[0]

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for frame in self._frames:
                # Around the sending only: waiting for news may take any time.
                async with asyncio.timeout(WRITE_WITHIN_S):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
        finally:
            # Its end frees its place among the instance's streams.
            await self._frames.aclose()
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
