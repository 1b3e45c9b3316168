"""The newest of `notices`, for everybody who hears them over HTTP: read once, kept in a ring, each reader with a place.

The ring is every stream's queue: whoever reads so slowly that what comes next has left it is told so, and must let
go of everything, as an instance must whose place the broker no longer has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
import structlog

from services.resolver.domain.snapshot import Floor
from shared import topics
from shared.bus.cloudevents import Message, Unreadable, decode, parse
from shared.bus.signatures import record_verifies
from shared.bus.whole_topic import Batch, Read, Restarted
from shared.crypto.framing import to_base64url
from shared.crypto.signing import VerifyKey
from shared.events.notices import Notice, NoticeTick
from shared.events.policy import TickRecord

KEPT: Final = 5_000
"""Events, some 700 bytes each: more than an hour of ticks, where an instance may be cut off for a minute."""
KEPT_BYTES: Final = 32 * 1024 * 1024
"""Of them together: a notice of a thousand ends is large."""
READ_BACK: Final = 500
"""Offsets before the end at which a replica begins: so far back its floor reaches, and so far may an instance."""
TICK_ID: Final = "tick"

_log = structlog.get_logger(__name__)


class Reader(Protocol):
    """A reader of the whole topic: `shared.bus.whole_topic.WholeTopicReader`, or a fake."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read now, or None."""
        ...

    async def open(self) -> int:
        """Capture the position: everything from it on will be read."""
        ...

    def __aiter__(self) -> AsyncIterator[Read]:
        """All that follows, for ever."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it goes out: its name, its offset, its JSON."""

    offset: int
    name: str
    data: bytes

    def frame(self) -> bytes:
        """As a server-sent event (WHATWG HTML, 9.2)."""
        # One line: orjson writes no line breaks.
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (self.offset, self.name.encode(), self.data)


@dataclass(frozen=True, slots=True)
class Gone:
    """What should come next is not here any more. `resume` is the place to go on from, with nothing held."""

    resume: int


class NoticeFeed:
    """`run` it as a task; everything else only looks."""

    def __init__(
        self, reader: Reader, policy_key: VerifyKey, *, kept: int = KEPT, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._reader = reader
        self._policy_key = policy_key
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._bytes = 0
        self._ring: deque[Told] = deque()
        # The lowest offset whose event would be in the ring, if it was one.
        self._first = 0
        self._newest = -1
        self._newest_tick: int | None = None
        self._floor = Floor(0, 0)
        self._moved = asyncio.Event()
        self.closed = False

    @property
    def newest(self) -> int:
        """The newest offset that was read; -1 before the first."""
        return self._newest

    @property
    def trouble(self) -> str | None:
        """Why nobody can hear anything here now; None when all is well."""
        return self._reader.trouble or (None if self._newest_tick is not None else "no tick of policy heard yet")

    def close(self) -> None:
        """Let all streams end."""
        self.closed = True
        self._wake()

    def beginning(self) -> int:
        """Where to begin who has no place yet: right before the newest tick, the first thing to hear."""
        return self._newest if self._newest_tick is None else self._newest_tick - 1

    def after(self, place: int) -> list[Told] | Gone:
        """Every event behind the offset `place`, or that some of them are gone."""
        if place + 1 < self._first:
            return Gone(self.beginning())
        news: list[Told] = []
        # From the new end: nearly always it is the last one or two.
        for told in reversed(self._ring):
            if told.offset <= place:
                break
            news.append(told)
        news.reverse()
        return news

    async def moved(self, *, within_s: float) -> None:
        """Return when there may be news, after `within_s` seconds at the latest."""
        try:
            async with asyncio.timeout(within_s):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def reach(self, offset: int, *, within_s: float) -> bool:
        """Whether everything up to `offset` was read here; waits for it so long."""
        try:
            async with asyncio.timeout(within_s):
                while self._newest < offset and not self.closed:
                    await self._moved.wait()
        except TimeoutError:
            pass
        return self._newest >= offset

    async def run(self) -> None:
        """Follow the topic for ever."""
        position = await self._reader.open()
        # What stands before it was never read here: whoever asks for it is told that it is gone.
        self._first, self._newest = position, position - 1
        try:
            async for read in self._reader:
                match read:
                    case Restarted(position=position):
                        self._start_over(position)
                    case Batch(messages=messages, position=position):
                        for message in messages:
                            self._take(message)
                        # Markers of transactions take offsets too.
                        self._newest = position - 1
                self._wake()
        finally:
            await self._reader.close()

    def _wake(self) -> None:
        # A new one for those who come later; who waits on the old one has been woken.
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _start_over(self, position: int) -> None:
        """Nothing read so far says anything about what comes: everybody's place is gone."""
        self._empty(position)
        self._newest = position - 1

    def _empty(self, first: int) -> None:
        self._ring.clear()
        self._bytes, self._newest_tick, self._first = 0, None, first

    def _take(self, message: Message) -> None:
        """One message; one that can't be read may have meant anything: everybody before it has lost his place."""
        self._newest = message.offset
        try:
            told = self._told(message)
        except Unreadable as error:
            _log.error("notice unreadable", offset=message.offset, reason=error.detail)
            self._empty(message.offset + 1)
            return
        if told is None:
            return
        self._ring.append(told)
        self._bytes += len(told.data)
        if told.name == TICK_ID:
            self._newest_tick = told.offset
        while len(self._ring) > self._kept or self._bytes > self._kept_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        oldest = self._ring.popleft()
        self._bytes -= len(oldest.data)
        self._first = oldest.offset + 1
        # Nobody can begin there any more.
        if self._newest_tick is not None and self._newest_tick < self._first:
            self._newest_tick = None

    def _told(self, message: Message) -> Told | None:
        match message.type:
            case Notice.TYPE:
                notice = decode(message, Notice)
                seen = Floor(notice.policy_seq or 0, notice.catalog_seq or 0)
                # A notice names one of the two at most: the other stays as it was.
                self._floor = Floor(max(self._floor.policy, seen.policy), max(self._floor.catalog, seen.catalog))
                return self._event(message.offset, "notice", orjson.loads(notice.to_json()))
            case NoticeTick.TYPE:
                return self._tick(message)
            case _:
                return None

    def _tick(self, message: Message) -> Told | None:
        """Only one that policy signed: an instance of this profile need not be able to verify it."""
        passed_on = decode(message, NoticeTick)
        genuine = record_verifies(
            self._policy_key,
            passed_on.signature,
            topic=topics.POLICY,
            type_=TickRecord.TYPE,
            key=TICK_ID,
            payload=passed_on.payload,
        )
        # Passed over, and no place is gone: whoever hears no tick lets go of everything by itself in time.
        if not genuine:
            _log.error("tick refused", offset=message.offset)
            return None
        record = parse(passed_on.payload, TickRecord)
        said = {
            "seq": record.seq,
            "at": record.at,
            "payload": to_base64url(passed_on.payload),
            "signature": to_base64url(passed_on.signature),
            "key_id": passed_on.key_id,
        }
        return self._event(message.offset, TICK_ID, said)

    def _event(self, offset: int, name: str, said: dict[str, Any]) -> Told:
        floor = {"policy": self._floor.policy, "catalog": self._floor.catalog}
        return Told(offset, name, orjson.dumps(said | {"offset": offset, "floor": floor}))
