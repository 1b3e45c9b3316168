"""Wherever a reader starts, it sees every committed record behind that and no aborted one: on every broker."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest

from shared.bus.connection import KafkaSettings, disconnect, ensure_topics
from tests.integration.bus.conftest import ordered


async def read_from(kafka: KafkaSettings, topic: str, start: int, *, fetch_bytes: int) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    consumer = kafka.consumer(max_partition_fetch_bytes=fetch_bytes)
    consumer.assign([partition])
    values: list[bytes] = []
    try:
        await consumer.start()
        consumer.seek(partition, start)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            batch = await consumer.getmany(partition, timeout_ms=50)
            values += [record.value for record in batch.get(partition, [])]
    finally:
        await disconnect(consumer)
    return values


async def test_committed_records_are_read_from_every_offset_and_aborted_ones_from_none(kafka: KafkaSettings) -> None:
    topic = ordered("tests-aborts")
    await ensure_topics(kafka, [topic])
    identity = secrets.token_hex(4)
    expected: list[tuple[int, bytes]] = []
    for number in range(5):  # each of them fences the one before, which is left in the middle of a transaction
        producer = kafka.producer(transactional_id=identity, transaction_timeout_ms=60_000)
        await producer.start()
        for value in (f"good-{number}-{part}".encode() for part in range(2)):
            async with producer.transaction():
                done = await producer.send_and_wait(topic.name, value, b"k")
                expected.append((done.offset, value))
        await producer.begin_transaction()
        await producer.send_and_wait(topic.name, b"half", b"k")
        if number == 2:
            await producer.abort_transaction()
        await disconnect(producer, within_s=0.2)
    producer = kafka.producer(transactional_id=identity)
    await producer.start()
    await producer.stop()
    last = expected[-1][0]
    for start in range(last + 1):
        behind = [value for offset, value in expected if offset >= start]
        for fetch_bytes in (1_000_000, 1):
            assert await read_from(kafka, topic.name, start, fetch_bytes=fetch_bytes) == behind, start


async def test_an_idle_reader_asks_seldom_and_hears_quickly(kafka: KafkaSettings) -> None:
    topic = ordered("tests-pace")
    await ensure_topics(kafka, [topic])
    partition = TopicPartition(topic.name, 0)
    consumer = kafka.consumer()
    consumer.assign([partition])
    await consumer.start()
    producer = kafka.producer()
    await producer.start()
    asked = 0
    send = consumer._client.send

    async def counting(node: Any, request: Any, **options: Any) -> Any:
        nonlocal asked
        asked += isinstance(request, FetchRequest)
        return await send(node, request, **options)

    consumer._client.send = counting
    try:
        started = time.monotonic()
        await consumer.getmany(partition, timeout_ms=500)
        assert asked / (time.monotonic() - started) < 300
        reading = asyncio.create_task(consumer.getmany(partition, timeout_ms=10_000))
        await producer.send_and_wait(topic.name, b"x", b"k")
        assert len((await reading)[partition]) == 1
    finally:
        await disconnect(producer)
        await disconnect(consumer)
