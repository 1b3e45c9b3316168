"""A projection is ready when it holds everything, fresh when it is current, and never holds half a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

import pytest
from rpds import HashTrieMap

from shared.bus import whole_topic
from shared.bus.connection import KafkaSettings
from shared.bus.freshness import Freshness
from shared.bus.whole_topic import WholeTopicReader
from shared.projection.changes import Alert, Change, Removed, Upserted
from shared.projection.projection import Projection
from shared.projection.records import Registry, registry
from tests.fakes.clock import FakeClock
from tests.fakes.kafka_topic import FakeTopic
from tests.fakes.state_topic import STATE, Door, Lamp, committed, lamp, with_header
from tests.waiting import until

Lamps: TypeAlias = "HashTrieMap[str, str]"


def apply(snapshot: Lamps, change: Change) -> Lamps:
    match change:
        case Upserted(typed):
            assert isinstance(typed.record, Lamp)
            if typed.record.colour == "unusable":
                raise ValueError(typed.record.colour)
            return snapshot.insert(typed.key, typed.record.colour)
        case Removed(key, _, _):
            return snapshot.discard(key)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_topic, "POLL_S", 0.005)
    monkeypatch.setattr(whole_topic, "BACK_OFF_S", (0.001,))
    monkeypatch.setitem(Freshness.run.__kwdefaults__, "every_s", 0.01)


@dataclass
class Running:
    """A projection at work on a topic in memory."""

    topic: FakeTopic
    projection: Projection[Lamps]
    clock: FakeClock
    task: asyncio.Task[None]
    alerts: list[Alert] = field(default_factory=list)

    def holds(self, **colours: str) -> Callable[[], bool]:
        """Whether the snapshot is exactly this."""
        wanted = {f"lamp/{name}": colour for name, colour in colours.items()}
        return lambda: dict(self.projection.snapshot.items()) == wanted


@asynccontextmanager
async def running(topic: FakeTopic, known: Registry | None = None) -> AsyncIterator[Running]:
    alerts: list[Alert] = []
    clock = FakeClock()
    projection = Projection[Lamps](
        WholeTopicReader(cast("KafkaSettings", topic), STATE),
        known=registry(Lamp) if known is None else known,
        empty=HashTrieMap(),
        apply=apply,
        on_alert=alerts.append,
        clock=clock,
    )
    task = asyncio.create_task(projection.run())
    try:
        yield Running(topic, projection, clock, task, alerts)
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def topic() -> FakeTopic:
    topic = FakeTopic(STATE)
    topic.append(committed(lamp("a", 1, colour="red"), lamp("b", 1)))
    topic.append(committed(lamp("b", 2, colour="blue")))
    return topic


async def test_ready_after_everything_that_was_there_at_the_start_and_not_before(topic: FakeTopic) -> None:
    topic.fetch_at_most, topic.fetches_left = 1, 2
    async with running(topic) as it:
        await until(lambda: topic.fetches_left == 0)
        assert it.holds(a="red", b="white")()
        assert not it.projection.ready
        assert it.projection.reason
        topic.fetches_left = None
        await until(lambda: it.projection.ready)
        assert it.holds(a="red", b="blue")()
        assert (it.projection.seq, it.projection.position) == (2, 3)


async def test_an_empty_topic_is_ready_too() -> None:
    async with running(FakeTopic(STATE)) as it:
        await until(lambda: it.projection.ready)
        assert it.projection.seq == 0


async def test_not_ready_while_the_topic_can_not_be_read(topic: FakeTopic) -> None:
    topic.partitions = None
    async with running(topic) as it:
        await until(lambda: "may not read" in str(it.projection.reason))
        topic.partitions = {0}
        await until(lambda: it.projection.ready)


async def test_half_a_commit_is_never_in_a_snapshot(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        before = it.projection.snapshot
        first, second = committed(lamp("a", 3, colour="green"), lamp("b", 3, colour="green"))
        topic.fetch_at_most = 1
        topic.visible = topic.end  # both parts become visible together, as a transaction's do
        topic.append([first, second])
        seen = {before}
        topic.visible = None
        topic.wrote.set()

        def watch() -> bool:
            seen.add(it.projection.snapshot)
            return it.projection.seq == 3

        await until(watch, every=0)
        assert seen == {before, it.projection.snapshot}
        assert it.holds(a="green", b="green")()


async def test_the_snapshot_somebody_holds_never_changes(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        held = it.projection.snapshot
        topic.append(committed(lamp("a", 3, deleted=True)))
        await until(it.holds(b="blue"))
        assert dict(held.items()) == {"lamp/a": "red", "lamp/b": "blue"}


async def test_an_unreadable_record_denies_and_alerts(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        topic.append([replace(committed(lamp("a", 3))[0], value=b"{")])
        await until(it.holds(b="blue"))
        assert [(alert.key, alert.offset) for alert in it.alerts] == [("lamp/a", 3)]
        assert it.projection.ready


async def test_a_type_that_is_not_known_denies(topic: FakeTopic) -> None:
    async with running(topic, registry(Door)) as it:
        await until(lambda: it.projection.ready)
        assert it.holds()()
        assert len(it.alerts) == 3


async def test_a_record_that_can_not_be_applied_denies_its_key_and_no_other(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        topic.append(committed(lamp("a", 3, colour="unusable"), lamp("b", 3, colour="green")))
        await until(it.holds(b="green"))
        assert [alert.reason for alert in it.alerts] == ["unusable: ValueError"]


async def test_a_record_without_a_key_makes_it_not_ready(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        topic.append([replace(committed(lamp("a", 3))[0], key=None)])
        await until(lambda: "no usable key" in str(it.projection.reason))
        assert not it.projection.ready


async def test_it_lets_go_of_its_connection_also_when_it_is_cancelled_while_it_gives_up(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        topic.partitions = {0, 1}
        topic.wrote.set()
        await until(lambda: not it.projection.ready, every=0)
    assert topic.stops == topic.starts == 1


async def test_partitions_that_grew_make_it_not_ready_and_not_fresh_for_good(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready and it.projection.freshness.is_fresh())
        topic.partitions = {0, 1}
        await until(lambda: "2 partitions" in str(it.projection.reason))
        topic.partitions = {0}
        assert not it.projection.ready
        assert not it.projection.freshness.is_fresh()
        await asyncio.wait_for(it.task, 5)
        assert not it.projection.ready


async def test_starting_over_drops_everything_and_is_not_ready_until_rebuilt(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready and it.projection.freshness.is_fresh())
        topic.records, topic.end = [], 0
        topic.fetch_at_most, topic.fetches_left = 1, 1
        topic.append([*committed(lamp("c", 1)), *committed(lamp("d", 2))])
        await until(it.holds(c="white"))
        assert not it.projection.ready
        assert not it.projection.freshness.is_fresh()
        assert it.projection.seq == 1
        topic.fetches_left = None
        await until(lambda: it.projection.ready)
        assert it.holds(c="white", d="white")()


async def test_between_the_restart_and_the_first_record_nothing_is_known(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        topic.records, topic.end = [], 0
        await until(it.holds())
        assert it.projection.seq == 0


async def test_a_broker_that_is_away_leaves_it_ready_but_not_fresh(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready and it.projection.freshness.is_fresh())
        topic.away = True
        it.clock.advance(3.1)
        assert it.projection.ready
        assert not it.projection.freshness.is_fresh()
        topic.away = False
        await until(it.projection.freshness.is_fresh)


async def test_a_projection_that_lags_is_not_fresh(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready and it.projection.freshness.is_fresh())
        topic.fetches_left = 0
        topic.append(committed(lamp("a", 3)))
        it.clock.advance(3.1)
        await it.projection.freshness.ask()
        assert not it.projection.freshness.is_fresh()
        topic.fetches_left = None
        await until(it.projection.freshness.is_fresh)


async def test_a_commit_that_is_held_back_is_not_counted_as_applied(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready and it.projection.freshness.is_fresh())
        topic.fetch_at_most, topic.fetches_left = 1, 1
        topic.append(committed(lamp("a", 3), lamp("b", 3)))
        await until(lambda: topic.fetches_left == 0)
        it.clock.advance(3.1)
        await it.projection.freshness.ask()
        assert (it.projection.seq, it.projection.position) == (2, 3)
        assert not it.projection.freshness.is_fresh()


async def test_waiting_for_a_commit_ends_with_its_snapshot(topic: FakeTopic) -> None:
    async with running(topic) as it:
        assert await it.projection.wait_for(2, timeout_s=5)
        waiting = asyncio.create_task(it.projection.wait_for(4, timeout_s=5))
        topic.append(committed(lamp("a", 3)))
        await until(lambda: it.projection.seq == 3)
        assert not waiting.done()
        topic.append(committed(lamp("a", 4, colour="four")))
        assert await waiting
        assert it.holds(a="four", b="blue")()


async def test_waiting_for_a_commit_that_does_not_come_ends_in_time(topic: FakeTopic) -> None:
    async with running(topic) as it:
        assert not await it.projection.wait_for(9, timeout_s=0.05)
        assert it.projection._waiting == []


async def test_waiting_on_a_projection_that_has_it_does_not_wait(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        assert await it.projection.wait_for(2, timeout_s=0)


async def test_a_commit_that_is_superseded_while_being_waited_for_counts(topic: FakeTopic) -> None:
    async with running(topic) as it:
        waiting = asyncio.create_task(it.projection.wait_for(3, timeout_s=5))
        topic.append(committed(lamp("z", 7)))
        assert await waiting


async def test_two_projections_do_not_wait_for_each_other(topic: FakeTopic) -> None:
    dark = FakeTopic(STATE, partitions=None)
    async with running(topic) as it, running(dark) as other:
        await until(lambda: it.projection.ready)
        assert not other.projection.ready


async def test_garbage_headers_do_not_stop_it(topic: FakeTopic) -> None:
    async with running(topic) as it:
        await until(lambda: it.projection.ready)
        topic.append([with_header(committed(lamp("a", 3))[0], "ce_commitpart", b"\xff/\xff")])
        await until(it.holds(b="blue"))
