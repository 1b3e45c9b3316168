"""A stream goes on where it was cut, ends with its instance's right to it, and waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from services.resolver.https_only import streams as module
from services.resolver.https_only.streams import AHEAD_S, IDLE_S, MOST_AT_ONCE, STREAMS_EACH, EventStream
from tests.fakes.https_door import INSTANCE, HttpsDoor, heard
from tests.waiting import until


def names(frame: bytes) -> list[str]:
    return [line.removeprefix("event: ") for line in frame.decode().splitlines() if line.startswith("event: ")]


def ids(frame: bytes) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in frame.decode().splitlines() if line.startswith("id: ")]


def follow(door: HttpsDoor, place: int | None = None, *, may: list[bool] | None = None) -> AsyncGenerator[bytes]:
    allowed = [True] if may is None else may
    return door.streams.frames(INSTANCE, place, lambda: allowed[0])


async def test_it_goes_on_behind_the_place_that_was_named(door: HttpsDoor) -> None:
    place, notice, tick = door.topic.tick(), door.topic.revoke("grant/1"), door.topic.tick()
    await heard(door.feed, tick)
    async with aclosing(follow(door, place)) as frames:
        frame = await anext(frames)
        assert (names(frame), ids(frame)) == (["notice", "tick"], [notice, tick])
        later = asyncio.ensure_future(anext(frames))
        newest = door.topic.revoke("grant/2")
        assert ids(await later) == [newest]


async def test_much_at_once_comes_in_pieces(door: HttpsDoor) -> None:
    offsets = [door.topic.tick() for _ in range(MOST_AT_ONCE + 10)]
    await heard(door.feed, offsets[-1])
    async with aclosing(follow(door, -1)) as frames:
        assert ids(await anext(frames)) == offsets[:MOST_AT_ONCE]
        assert ids(await anext(frames)) == offsets[MOST_AT_ONCE:]


async def test_a_place_that_is_gone_is_told_and_it_goes_on_from_the_newest_tick(door: HttpsDoor) -> None:
    door.topic.tick()
    door.topic.rubbish()
    tick = door.topic.tick()
    await heard(door.feed, tick)
    async with aclosing(follow(door, 0)) as frames:
        assert names(await anext(frames)) == ["lost"]
        assert ids(await anext(frames)) == [tick]


async def test_a_place_ahead_of_this_replica_is_waited_for_but_not_for_ever(door: HttpsDoor) -> None:
    tick = door.topic.tick()
    await heard(door.feed, tick)
    async with aclosing(follow(door, tick + 1000)) as frames:
        waiting = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        door.now += AHEAD_S + 1
        assert names(await waiting) == ["lost"]
        assert ids(await anext(frames)) == [tick]


async def test_a_place_ahead_that_is_reached_in_time_loses_nothing(door: HttpsDoor) -> None:
    tick = door.topic.tick()
    await heard(door.feed, tick)
    async with aclosing(follow(door, tick + 1)) as frames:
        waiting = asyncio.ensure_future(anext(frames))
        door.topic.revoke("grant/1")
        assert ids_after(door, tick + 1) == []
        last = door.topic.revoke("grant/2")
        assert ids(await waiting) == [last]


def ids_after(door: HttpsDoor, place: int) -> list[int]:
    found = door.feed.after(place)
    assert isinstance(found, list)
    return [one.offset for one in found]


async def test_it_ends_when_its_instance_may_not_act_any_more(door: HttpsDoor) -> None:
    may = [True]
    await heard(door.feed, door.topic.tick())
    frames = follow(door, may=may)
    await anext(frames)
    ending = asyncio.ensure_future(anext(frames, None))
    may[0] = False
    # Without any event that would wake it.
    assert await asyncio.wait_for(ending, 1) is None
    assert door.streams.count(INSTANCE) == 0


async def test_nothing_is_told_to_one_that_may_not_act_even_if_there_is_news(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    assert [frame async for frame in follow(door, may=[False])] == []


async def test_all_end_when_the_replica_stops(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    frames = follow(door)
    await anext(frames)
    ending = asyncio.ensure_future(anext(frames, None))
    await asyncio.sleep(0)
    door.feed.close()
    assert await asyncio.wait_for(ending, 1) is None


async def test_one_stream_too_many_ends_the_oldest_of_that_instance_and_no_other(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    open_ones = [follow(door) for _ in range(STREAMS_EACH)]
    other = door.streams.frames("instance/other", None, lambda: True)
    for frames in (*open_ones, other):
        await anext(frames)
    newest = follow(door)
    await anext(newest)
    assert await asyncio.wait_for(anext(open_ones[0], None), 1) is None
    assert (door.streams.count(INSTANCE), door.streams.count("instance/other")) == (STREAMS_EACH, 1)
    for frames in (*open_ones[1:], newest, other):
        await frames.aclose()
    assert door.streams.count(INSTANCE) == door.streams.count("instance/other") == 0


async def test_a_silence_is_broken_by_a_comment(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    async with aclosing(follow(door)) as frames:
        await anext(frames)
        waiting = asyncio.ensure_future(anext(frames))
        door.now += IDLE_S + 1
        assert await waiting == b":\n\n"


class Connection:
    """What a server does with an event stream; a reader that is `stuck` takes nothing."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.stuck, self.left = stuck, asyncio.Event()
        self.events: list[dict[str, Any]] = []
        self.aborted = 0

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Any) -> None:
        self.events.append(event)
        if self.stuck and event["type"] == "http.response.body":
            await asyncio.Event().wait()

    def abort(self) -> None:
        self.aborted += 1


async def serve(connection: Connection, frames: AsyncGenerator[bytes]) -> None:
    await EventStream(frames, abort=connection.abort)({}, connection.receive, connection.send)


async def test_a_reader_that_takes_nothing_is_cut(door: HttpsDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_WITHIN_S", 0.01)
    await heard(door.feed, door.topic.tick())
    connection = Connection(stuck=True)
    await asyncio.wait_for(serve(connection, follow(door)), 2)
    assert connection.aborted == 1
    assert door.streams.count(INSTANCE) == 0


async def test_a_reader_that_leaves_frees_its_place(door: HttpsDoor) -> None:
    await heard(door.feed, door.topic.tick())
    connection = Connection()
    serving = asyncio.create_task(serve(connection, follow(door)))
    await until(lambda: len(connection.events) > 1)
    assert door.streams.count(INSTANCE) == 1
    connection.left.set()
    await asyncio.wait_for(serving, 2)
    assert (door.streams.count(INSTANCE), connection.aborted) == (0, 0)


async def test_nothing_on_the_way_may_keep_or_gather_events(door: HttpsDoor) -> None:
    connection = Connection()
    await serve(connection, follow(door, may=[False]))
    start, end = connection.events
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-store"
    assert "content-length" not in headers
    assert end == {"type": "http.response.body", "body": b""}
