"""How far a group has come is a proof: what can't be asked is never taken for done."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from shared.bus import group_progress
from shared.bus.connection import KafkaSettings
from shared.bus.group_progress import GroupProgress
from shared.errors import Unavailable

TOPIC, GROUP = "keyfob.tests.v1", "tests"


@dataclass(slots=True)
class Broker:
    """Ends of partitions and positions of a group; give it as `kafka`."""

    ends: dict[int, int] = field(default_factory=lambda: {0: 5, 1: 0})
    kept: dict[TopicPartition, int] = field(default_factory=dict)
    away: bool = False
    closed: int = 0
    answering: asyncio.Event | None = None

    def client(self) -> dict[str, Any]:
        return {"broker": self}

    def consumer(self, *_: str, **__: Any) -> Client:
        return Client(self)


class Client:
    """What both aiokafka's consumer and its admin client are asked here."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def start(self) -> None:
        if self._broker.away:
            raise KafkaConnectionError
        if self._broker.answering is not None:
            await self._broker.answering.wait()

    async def stop(self) -> None:
        self._broker.closed += 1

    close = stop

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, number) for number in self._broker.ends}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {one: self._broker.ends[one.partition] for one in partitions}

    async def list_consumer_group_offsets(self, group: str) -> dict[TopicPartition, Any]:
        assert group == GROUP
        return {one: SimpleNamespace(offset=offset) for one, offset in self._broker.kept.items()}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    monkeypatch.setattr(group_progress, "AIOKafkaAdminClient", Client)
    monkeypatch.setattr(group_progress, "STOP_WITHIN_S", 1.0)
    return Broker()


@pytest.fixture
def progress(broker: Broker) -> GroupProgress:
    return GroupProgress(cast("KafkaSettings", broker), topic=TOPIC, group=GROUP)


async def test_a_group_has_come_so_far_when_every_partition_has(broker: Broker, progress: GroupProgress) -> None:
    ends = await progress.ends()
    assert ends == {0: 5, 1: 0}
    for kept, reached in ((4, False), (5, True), (6, True)):
        broker.kept = {TopicPartition(TOPIC, 0): kept}
        assert await progress.reached(ends) is reached


async def test_a_group_that_kept_no_position_has_come_nowhere(progress: GroupProgress) -> None:
    assert not await progress.reached({0: 1})
    assert await progress.reached({0: 0})


async def test_a_position_in_another_topic_says_nothing(broker: Broker, progress: GroupProgress) -> None:
    broker.kept = {TopicPartition("another", 0): 100}
    assert not await progress.reached({0: 5})


async def test_a_topic_without_a_partition_in_sight_has_no_end_to_be_reached(
    broker: Broker, progress: GroupProgress
) -> None:
    broker.ends = {}
    with pytest.raises(Unavailable, match="no partition"):
        await progress.ends()


async def test_a_broker_that_is_away_is_neither_yes_nor_no(broker: Broker, progress: GroupProgress) -> None:
    broker.away = True
    with pytest.raises(Unavailable, match="its end"):
        await progress.ends()
    with pytest.raises(Unavailable, match="its position"):
        await progress.reached({0: 0})
    assert broker.closed == 2


async def test_whoever_gives_up_leaves_no_half_open_connection(broker: Broker, progress: GroupProgress) -> None:
    broker.answering = asyncio.Event()
    asking = asyncio.create_task(progress.ends())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0)
    assert not asking.done(), "the question comes to its end first"
    broker.answering.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert broker.closed == 1
