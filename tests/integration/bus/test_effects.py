"""Effects happen at least once, in order within a partition, and a bad message stops nobody for long."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from opentelemetry import trace

from shared.bus.cloudevents import Message, encode
from shared.bus.connection import KafkaSettings, ensure_topics
from shared.bus.effects import (
    Ack,
    Consumption,
    Dead,
    Handler,
    Outcome,
    Patience,
    Retry,
    by_type,
    consume,
    consume_batches,
    effects_broker,
)
from shared.errors import Unavailable
from shared.events.contract import Contract
from shared.topics import Topic, dead
from tests.integration.bus.conftest import everything_in, ordered
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

QUICK = Patience((0.01, 0.02))


class Rang(Contract):
    """An event with a number."""

    TYPE: ClassVar[str] = "keyfob.tests.rang.v1"
    TOPIC: ClassVar[str] = "set by each test"

    number: int


@dataclass(slots=True)
class Bell:
    """A topic of effects, its dead letters, and consumers of it."""

    kafka: KafkaSettings
    topic: Topic
    group: str = field(default_factory=lambda: f"tests-{secrets.token_hex(4)}")

    async def ring(self, *numbers: int) -> None:
        """An event for each number."""
        event = type("Rang", (Rang,), {"TOPIC": self.topic.name})
        await self.send(
            *(encode(event(number=n), key="bell/a", source="keyfob/tests", event_id=f"e-{n}") for n in numbers)
        )

    async def send(self, *messages: Message) -> None:
        """Whatever it is."""
        producer = self.kafka.producer()
        await producer.start()
        for message in messages:
            key = None if message.key is None else message.key.encode()
            await producer.send_and_wait(self.topic.name, message.value, key, headers=list(message.headers))
        await producer.stop()

    async def dead_letters(self) -> list[Message]:
        """What was buried."""
        return await everything_in(self.kafka, dead(self.topic.name))

    @asynccontextmanager
    async def heard_by(self, handler: Handler, *, patience: Patience = QUICK) -> AsyncIterator[Consumption]:
        """A member of the group at work."""
        broker = effects_broker(self.kafka)
        consumption = consume(broker, topic=self.topic.name, group=self.group, handler=handler, patience=patience)
        await broker.start()
        try:
            yield consumption
        finally:
            await broker.stop()


@pytest.fixture
async def bell(kafka: KafkaSettings) -> Bell:
    topic = ordered("tests-bell")
    await ensure_topics(kafka, [topic, Topic(name=dead(topic.name), partitions=1, kept=topic.kept, ordered=True)])
    return Bell(kafka, topic)


@dataclass(frozen=True, slots=True)
class Listener:
    """Handlers as services have them: bound methods of a frozen dataclass that holds the ports."""

    heard: list[int]
    bad: frozenset[int] = frozenset()
    answer: Outcome = Ack()  # noqa: RUF009 - a frozen value

    async def rang(self, event: Rang, _: Message) -> Outcome:
        """Note the number."""
        self.heard.append(event.number)
        return self.answer if event.number in self.bad else Ack()

    def handler(self) -> Handler:
        """By type, as services subscribe."""
        return by_type({Rang: self.rang})


async def test_messages_are_handled_in_order(bell: Bell) -> None:
    heard: list[int] = []
    await bell.ring(*range(20))
    async with bell.heard_by(Listener(heard).handler()) as consumption:
        await until(lambda: consumption.settled == 20, within=60)
    assert heard == list(range(20))


async def test_what_was_settled_is_not_handled_again_by_the_next_member(bell: Bell) -> None:
    heard: list[int] = []
    await bell.ring(1, 2)
    async with bell.heard_by(Listener(heard).handler()) as consumption:
        await until(lambda: consumption.settled == 2, within=60)
    await bell.ring(3)
    async with bell.heard_by(Listener(heard).handler()) as consumption:
        await until(lambda: consumption.settled == 1, within=60)
    assert heard == [1, 2, 3]


async def test_a_poisonous_message_is_tried_buried_and_then_the_next_one_is_handled(bell: Bell) -> None:
    heard: list[int] = []
    await bell.ring(1, 2, 3)
    listener = Listener(heard, frozenset({2}), Retry(0.001, "not digestible"))
    async with bell.heard_by(listener.handler()) as consumption:
        await until(lambda: consumption.settled == 2, within=60)
        assert consumption.buried == 1
    assert heard == [1, 2, 2, 2, 3]
    (letter,) = await bell.dead_letters()
    assert (letter.key, letter.value) == ("bell/a", b'{"number":2}')
    headers = {name: letter.header(name) for name, _ in letter.headers}
    assert headers["dead_reason"] == "not digestible"
    assert (headers["dead_topic"], headers["dead_partition"], headers["dead_offset"]) == (bell.topic.name, "0", "1")
    assert (headers["ce_id"], headers["ce_type"], headers["dead_group"]) == ("e-2", Rang.TYPE, bell.group)


async def test_a_message_that_is_declared_dead_is_not_tried_again(bell: Bell) -> None:
    heard: list[int] = []
    await bell.ring(1, 2)
    async with bell.heard_by(Listener(heard, frozenset({1}), Dead("hopeless")).handler()) as consumption:
        await until(lambda: consumption.settled == 1, within=60)
    assert heard == [1, 2]
    assert [letter.header("dead_reason") for letter in await bell.dead_letters()] == ["hopeless"]


async def test_a_handler_that_raises_counts_as_a_retry_and_its_words_are_not_kept(bell: Bell) -> None:
    async def broken(_: Message) -> Outcome:
        raise ValueError("hunter2")

    await bell.ring(1)
    async with bell.heard_by(broken) as consumption:
        await until(lambda: consumption.buried == 1, within=60)
    (letter,) = await bell.dead_letters()
    assert letter.header("dead_reason") == "ValueError"


async def test_unreadable_messages_and_unknown_types_are_buried_unchanged(bell: Bell) -> None:
    heard: list[int] = []
    strange = Message(topic="", key="bell/a", value=b"\xff\x00", headers=(("ce_type", b"\xff\xfe"), ("x", b"\x80")))
    unknown = Message(topic="", key="bell/a", value=b"{}", headers=(("ce_type", b"keyfob.tests.newer.v9"),))
    garbled = Message(topic="", key=None, value=b"{", headers=(("ce_type", Rang.TYPE.encode()),))
    await bell.send(strange, unknown, garbled)
    await bell.ring(4)
    async with bell.heard_by(Listener(heard).handler()) as consumption:
        await until(lambda: consumption.settled == 1, within=60)
    assert heard == [4]
    assert [letter.value for letter in await bell.dead_letters()] == [b"\xff\x00", b"{}", b"{"]


async def test_an_outage_of_ours_is_waited_out_and_buries_nothing(bell: Bell) -> None:
    attempts: list[int] = []

    async def database_is_away(_: Message) -> Outcome:
        attempts.append(1)
        if len(attempts) < 8:
            raise Unavailable("away")
        return Ack()

    await bell.ring(1)
    async with bell.heard_by(database_is_away) as consumption:
        await until(lambda: consumption.settled == 1, within=60)
    assert len(attempts) == 8
    assert await bell.dead_letters() == []


async def test_a_consumer_that_is_killed_while_handling_gets_the_message_again(bell: Bell) -> None:
    started, attempts = asyncio.Event(), []

    async def never_ends(message: Message) -> Outcome:
        attempts.append(message.offset)
        started.set()
        await asyncio.sleep(3600)
        return Ack()

    await bell.ring(1)
    broker = effects_broker(bell.kafka)
    consumption = consume(broker, topic=bell.topic.name, group=bell.group, handler=never_ends)
    await broker.start()
    await started.wait()
    subscriber: Any = consumption._subscriber
    for task in subscriber.tasks:
        task.cancel()
    heard: list[int] = []
    await broker.stop()
    async with bell.heard_by(Listener(heard).handler()) as second:
        await until(lambda: second.settled == 1, within=60)
    assert (attempts, heard) == ([0], [1])


async def test_stopping_during_retries_keeps_the_message_for_the_next_member(bell: Bell) -> None:
    tried = asyncio.Event()

    async def away(_: Message) -> Outcome:
        tried.set()
        raise Unavailable("away")

    await bell.ring(1)
    async with bell.heard_by(away):
        await tried.wait()
    heard: list[int] = []
    async with bell.heard_by(Listener(heard).handler()) as second:
        await until(lambda: second.settled == 1, within=60)
    assert heard == [1]


async def test_batches_are_handled_together_and_after_a_failure_one_by_one(bell: Bell) -> None:
    sizes: list[int] = []
    done: list[str | None] = []

    async def many(messages: tuple[Message, ...]) -> Outcome:
        sizes.append(len(messages))
        if any(message.event_id == "e-3" for message in messages):
            return Dead("three")
        done.extend(message.event_id for message in messages)
        return Ack()

    await bell.ring(*range(6))
    broker = effects_broker(bell.kafka)
    consumption = consume_batches(broker, topic=bell.topic.name, group=bell.group, handler=many, patience=QUICK)
    await broker.start()
    try:
        await until(lambda: consumption.settled == 5, within=60)
    finally:
        await broker.stop()
    assert done == ["e-0", "e-1", "e-2", "e-4", "e-5"]
    assert max(sizes) > 1
    assert [letter.header("ce_id") for letter in await bell.dead_letters()] == ["e-3"]


async def test_a_message_that_the_broker_held_back_comes_without_another_one(bell: Bell) -> None:
    heard: list[str | None] = []

    async def many(messages: tuple[Message, ...]) -> Outcome:
        heard.extend(message.event_id for message in messages)
        return Ack()

    broker = effects_broker(bell.kafka)
    consume_batches(broker, topic=bell.topic.name, group=bell.group, handler=many, gather_ms=250)
    await broker.start()
    try:
        for number in range(3):
            await bell.ring(number)
            await until(lambda number=number: heard[number:], within=60)
    finally:
        await broker.stop()
    assert heard == ["e-0", "e-1", "e-2"]


async def test_the_handler_s_span_is_a_child_of_the_message_s(bell: Bell) -> None:
    seen: list[int] = []

    async def look(_: Message) -> Outcome:
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return Ack()

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await bell.send(Message(topic="", key="a", value=b"{}", headers=(("traceparent", parent.encode()),)))
    async with bell.heard_by(look) as consumption:
        await until(lambda: consumption.settled == 1, within=60)
    assert seen == [0x0AF7651916CD43DD8448EB211C80319C]


async def test_liveness_follows_position_and_end(bell: Bell) -> None:
    release = asyncio.Event()

    async def slow(_: Message) -> Outcome:
        await release.wait()
        return Ack()

    async with bell.heard_by(slow) as consumption:
        consumption.liveness._bound_s = 0.2
        watching = asyncio.create_task(consumption.watch(every_s=0.05))
        await bell.ring(1, 2)
        await until(lambda: consumption.reason, within=60)
        release.set()
        await until(lambda: consumption.settled == 2 and consumption.reason is None, within=60)
        watching.cancel()
        await asyncio.wait({watching})
