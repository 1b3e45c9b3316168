"""A reader of a whole topic never skips: it reads on, or says what is in the way, or says to start over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from shared.bus import whole_topic
from shared.bus.connection import KafkaSettings
from shared.bus.whole_topic import (
    Batch,
    FromBeginning,
    FromEnd,
    FromOffset,
    OrderLost,
    Read,
    Restarted,
    Start,
    WholeTopicReader,
)
from shared.errors import Unavailable
from tests.fakes.kafka_topic import FakeTopic
from tests.fakes.state_topic import STATE, committed, lamp
from tests.waiting import until


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_topic, "POLL_S", 0.005)
    monkeypatch.setattr(whole_topic, "BACK_OFF_S", (0.001,))


@pytest.fixture
def topic() -> FakeTopic:
    topic = FakeTopic(STATE)
    for seq in range(1, 4):
        topic.append(committed(lamp(str(seq), seq)))
    return topic


def reader_of(topic: FakeTopic, start: Start = FromBeginning()) -> WholeTopicReader:  # noqa: B008
    return WholeTopicReader(cast("KafkaSettings", topic), STATE, start=start)


async def reads(reader: WholeTopicReader) -> AsyncIterator[Read]:
    async for read in reader:
        yield read


async def first(reader: WholeTopicReader) -> Read:
    return await asyncio.wait_for(anext(reads(reader)), 5)


def keys(read: Any) -> list[str | None]:
    assert isinstance(read, Batch)
    return [message.key for message in read.messages]


async def test_it_reads_from_the_beginning(topic: FakeTopic) -> None:
    read = await first(reader_of(topic))
    assert keys(read) == ["lamp/1", "lamp/2", "lamp/3"]
    assert isinstance(read, Batch)
    assert (read.position, read.at_end) == (3, True)


async def test_it_captures_the_end_when_it_is_opened(topic: FakeTopic) -> None:
    reader = reader_of(topic, FromEnd())
    assert await reader.open() == 3
    topic.append(committed(lamp("4", 4)))
    assert keys(await first(reader)) == ["lamp/4"]


async def test_it_begins_a_little_before_the_end_but_never_before_the_beginning(topic: FakeTopic) -> None:
    assert await reader_of(topic, FromEnd(back=2)).open() == 1
    assert await reader_of(topic, FromEnd(back=500)).open() == 0


async def test_it_goes_on_where_somebody_noted(topic: FakeTopic) -> None:
    assert keys(await first(reader_of(topic, FromOffset(2)))) == ["lamp/3"]


async def test_an_empty_topic_is_read_to_its_end_too() -> None:
    assert await first(reader_of(FakeTopic(STATE))) == Batch((), 0, at_end=True)


async def test_a_batch_that_stops_before_the_end_says_so(topic: FakeTopic) -> None:
    topic.fetch_at_most = 2
    stream = reads(reader_of(topic))
    assert [cast("Batch", await anext(stream)).at_end for _ in range(2)] == [False, True]


async def test_what_an_open_transaction_wrote_is_behind_the_end(topic: FakeTopic) -> None:
    topic.visible = 2
    read = await first(reader_of(topic))
    assert keys(read) == ["lamp/1", "lamp/2"]
    assert cast("Batch", read).at_end


async def test_a_position_that_moves_over_markers_is_told(topic: FakeTopic) -> None:
    stream = reads(reader_of(topic))
    await anext(stream)
    topic.end += 1
    assert await asyncio.wait_for(anext(stream), 5) == Batch((), 4, at_end=True)


async def test_a_broker_that_goes_away_is_waited_for_and_nothing_is_read_twice(topic: FakeTopic) -> None:
    reader = reader_of(topic)
    stream = reads(reader)
    assert len(keys(await anext(stream))) == 3
    topic.away = True
    following = asyncio.ensure_future(anext(stream))
    await until(lambda: reader.trouble)
    topic.append(committed(lamp("4", 4)))
    topic.away = False
    assert keys(await asyncio.wait_for(following, 5)) == ["lamp/4"]
    assert reader.trouble is None
    assert topic.starts > 1


async def test_what_the_broker_no_longer_has_means_start_over(topic: FakeTopic) -> None:
    stream = reads(reader_of(topic))
    topic.fetch_at_most = 1
    await anext(stream)
    topic.cut(2)
    restarted = await asyncio.wait_for(anext(stream), 5)
    assert isinstance(restarted, Restarted)
    assert restarted.position == 2
    assert keys(await anext(stream)) == ["lamp/3"]


async def test_a_topic_that_was_made_anew_means_start_over(topic: FakeTopic) -> None:
    stream = reads(reader_of(topic))
    await anext(stream)
    topic.records, topic.end = [], 0
    topic.append(committed(lamp("9", 1)))
    assert isinstance(await asyncio.wait_for(anext(stream), 5), Restarted)
    assert keys(await anext(stream)) == ["lamp/9"]


async def test_a_noted_offset_that_is_gone_means_start_over_from_the_beginning(topic: FakeTopic) -> None:
    topic.cut(2)
    stream = reads(reader_of(topic, FromOffset(1)))
    assert await asyncio.wait_for(anext(stream), 5) == Restarted("the broker no longer has offset 1", 2)


async def test_partitions_that_grew_break_the_reader_for_good(topic: FakeTopic) -> None:
    reader = reader_of(topic)
    stream = reads(reader)
    await anext(stream)
    topic.partitions = {0, 1}
    with pytest.raises(OrderLost):
        await asyncio.wait_for(anext(stream), 5)
    topic.partitions = {0}
    with pytest.raises(OrderLost):
        await reader.end_offset()
    with pytest.raises(OrderLost):
        await first(reader)
    assert "2 partitions" in str(reader.trouble)


async def test_metadata_that_may_not_be_read_is_said_instead_of_waiting_silently(topic: FakeTopic) -> None:
    topic.partitions = None
    reader = reader_of(topic)
    opening = asyncio.create_task(reader.open())
    await until(lambda: "may not read" in str(reader.trouble))
    topic.partitions = {0}
    assert await asyncio.wait_for(opening, 5) == 0
    assert reader.trouble is None


async def test_the_end_can_not_be_asked_before_it_is_open(topic: FakeTopic) -> None:
    with pytest.raises(Unavailable):
        await reader_of(topic).end_offset()


async def test_whoever_gives_up_opening_leaves_no_connection_behind(topic: FakeTopic) -> None:
    topic.unanswered = True
    opening = asyncio.create_task(reader_of(topic).open())
    await until(lambda: topic.starts)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert topic.stops == 1


async def test_where_nothing_moved_there_is_nothing_to_say(topic: FakeTopic) -> None:
    stream = reads(reader_of(topic))
    await anext(stream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.05)


async def test_closing_what_is_not_open_changes_nothing(topic: FakeTopic) -> None:
    reader = reader_of(topic)
    await reader.close()
    assert (reader.position, topic.stops) == (-1, 0)
    await reader.open()
    await reader.close()
    await reader.close()
    assert topic.stops == 1


async def test_closing_and_opening_goes_on_at_the_same_place(topic: FakeTopic) -> None:
    reader = reader_of(topic)
    await first(reader)
    await reader.close()
    assert await reader.open() == 3
