"""Clients that are given up while the broker is away: nothing of them is left at work, nor wakes up when it is back."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from services.dev.platform import Broker
from shared.bus.connection import KafkaSettings, disconnect, ensure_topics
from shared.topics import Topic
from tests.integration.bus.conftest import everything_in, ordered
from tests.waiting import until

SENT = [b"idempotent", b"in a transaction", b"repeating"]


class Clients:
    """One of each kind, at work in one topic."""

    def __init__(self, kafka: KafkaSettings, topic: Topic) -> None:
        self.topic = topic.name
        self.transactional = kafka.producer(transactional_id="tests", transaction_timeout_ms=10_000)
        self.idempotent, self.repeating = kafka.producer(), kafka.repeating_producer()
        self.producers = [self.idempotent, self.transactional, self.repeating]
        self.consumers = [kafka.consumer(self.topic), kafka.consumer(self.topic, group_id="tests")]

    async def work(self) -> None:
        for client in (*self.producers, *self.consumers):
            await client.start()
        async with self.transactional.transaction():
            await asyncio.gather(*self.send_all())
        for consumer in self.consumers:
            assert await consumer.getmany(timeout_ms=10_000)

    def send_all(self) -> list[asyncio.Task[object]]:
        each = zip(self.producers, SENT, strict=True)
        return [asyncio.create_task(producer.send_and_wait(self.topic, text)) for producer, text in each]

    async def lose_the_broker(self) -> None:
        """Each has a message that it can't send, and one a transaction that it can't commit; all are given up."""
        await self.transactional.begin_transaction()
        waiting = [*self.send_all(), asyncio.create_task(self.transactional.commit_transaction())]
        ended, _ = await asyncio.wait(waiting, timeout=1)
        assert not ended
        for client in (*self.producers, *self.consumers):
            await disconnect(client, within_s=0.2)
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)


@pytest_asyncio.fixture(loop_scope="session")
async def kafka(own_broker: Broker) -> KafkaSettings:
    return KafkaSettings(bootstrap=own_broker.bootstrap, client_id="tests")


@pytest_asyncio.fixture(loop_scope="session")
async def topic(kafka: KafkaSettings) -> Topic:
    made = ordered("given-up")
    await ensure_topics(kafka, [made])
    return made


async def test_what_was_not_sent_is_not_sent_when_the_broker_is_back(
    kafka: KafkaSettings, topic: Topic, own_broker: Broker
) -> None:
    before = asyncio.all_tasks()
    clients = Clients(kafka, topic)
    await clients.work()
    await own_broker.stop()
    await clients.lose_the_broker()
    await until(lambda: not asyncio.all_tasks() - before, within=10)
    await own_broker.start()
    assert sorted(message.value for message in await everything_in(kafka, topic.name)) == SENT


async def test_a_broker_that_hangs_holds_nothing_up(kafka: KafkaSettings, topic: Topic, own_broker: Broker) -> None:
    before = asyncio.all_tasks()
    clients = Clients(kafka, topic)
    await clients.work()
    own_broker.process.suspend()
    try:
        await clients.lose_the_broker()
        await until(lambda: not asyncio.all_tasks() - before, within=10)
    finally:
        own_broker.process.resume()


async def test_a_commit_that_nobody_waits_for_any_more_is_carried_to_its_end(
    kafka: KafkaSettings, topic: Topic, own_broker: Broker
) -> None:
    producer = await transacting(kafka)
    own_broker.process.suspend()
    try:
        await producer.send(topic.name, b"committed")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await producer.commit_transaction()
        stopping = asyncio.create_task(disconnect(producer, within_s=10))
    finally:
        own_broker.process.resume()
    await stopping
    assert [message.value for message in await everything_in(kafka, topic.name)] == [b"committed"]


async def test_what_nobody_asked_to_commit_is_aborted(kafka: KafkaSettings, topic: Topic) -> None:
    producer = await transacting(kafka)
    await producer.send_and_wait(topic.name, b"not committed")
    await disconnect(producer, within_s=10)
    assert await everything_in(kafka, topic.name) == []


async def transacting(kafka: KafkaSettings) -> AIOKafkaProducer:
    producer = kafka.producer(transactional_id="tests", transaction_timeout_ms=10_000)
    await producer.start()
    await producer.begin_transaction()
    return producer
