"""Brokers: what was acknowledged is there after a restart, at the same address."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from services.dev.platform import Broker, EmbeddedBroker, ExternalBroker, Unavailable, apache, broker_from_env
from services.dev.platform.apache import ApacheBroker
from services.dev.platform.failures import PlatformFailure
from services.dev.platform.ports import free_port
from tests.waiting import until

RECORDS = 500

pytestmark = pytest.mark.timeout(300)


@pytest_asyncio.fixture(loop_scope="session")
async def broker(state_directory: Path) -> AsyncIterator[Broker]:
    """One of this test's own, as BROKER says."""
    chosen = broker_from_env(state_directory)
    if isinstance(chosen, ExternalBroker):
        pytest.skip("an external broker isn't ours to kill")
    await chosen.start()
    yield chosen
    await chosen.stop()


async def create_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(name, num_partitions=3, replication_factor=1)])
        assert [code for _, code, *_ in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, values: range) -> None:
    """Returns when all are acknowledged."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        sent = [await producer.send(topic, str(value).encode(), key=str(value).encode()) for value in values]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def everything_in(bootstrap: str, topic: str, count: int) -> list[int]:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    found: list[int] = []
    try:
        while len(found) < count:
            batches = await consumer.getmany(timeout_ms=5_000)
            assert batches, f"only {len(found)} of {count} came"
            found += [int(record.value) for records in batches.values() for record in records]
        # Nothing more than that: no doubles.
        assert not await consumer.getmany(timeout_ms=200)
    finally:
        await consumer.stop()
    return sorted(found)


def saved_by_the_embedded_broker(directory: Path, topic: str) -> int:
    """Records of the topic in the file that it rewrites once a second."""
    file = directory / "broker" / "kafka.json"
    topics = dict(json.loads(file.read_text())["topics"]) if file.exists() else {}
    return sum(partition["high_watermark"] for _, partition in topics.get(topic, {"partitions": []})["partitions"])


async def test_kill_keeps_what_was_acknowledged(broker: Broker) -> None:
    if not broker.survives_kill:
        pytest.skip("the embedded broker saves once a second: this promise needs BROKER=apache")
    await create_topic(broker.bootstrap, "kept")
    await produce(broker.bootstrap, "kept", range(RECORDS))
    address = broker.bootstrap
    broker.kill()
    await broker.start()
    assert broker.bootstrap == address
    assert await everything_in(address, "kept", RECORDS) == list(range(RECORDS))


async def test_kill_keeps_what_the_embedded_broker_had_saved(state_directory: Path) -> None:
    broker = EmbeddedBroker(state_directory / "broker")
    await broker.start()
    await create_topic(broker.bootstrap, "kept")
    await produce(broker.bootstrap, "kept", range(RECORDS))
    await until(lambda: saved_by_the_embedded_broker(state_directory, "kept") == RECORDS)
    broker.kill()
    await broker.start()
    assert await everything_in(broker.bootstrap, "kept", RECORDS) == list(range(RECORDS))
    await broker.stop()


async def test_stop_and_a_new_object_on_the_same_directory_keep_everything(
    broker: Broker, state_directory: Path
) -> None:
    await create_topic(broker.bootstrap, "kept")
    await produce(broker.bootstrap, "kept", range(RECORDS))
    await broker.stop()
    again = broker_from_env(state_directory)
    await again.start()
    try:
        assert again.bootstrap == broker.bootstrap
        assert await everything_in(again.bootstrap, "kept", RECORDS) == list(range(RECORDS))
    finally:
        await again.stop()


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kinds = {"embedded": EmbeddedBroker, "": EmbeddedBroker, "apache": ApacheBroker, "kafka-1:9092": ExternalBroker}
    for value, kind in kinds.items():
        monkeypatch.setenv("BROKER", value)
        assert type(broker_from_env(tmp_path)) is kind
    monkeypatch.delenv("BROKER")
    assert type(broker_from_env(tmp_path)) is EmbeddedBroker
    monkeypatch.setenv("BROKER", "rabbit")
    with pytest.raises(ValueError, match="embedded, apache or host:port"):
        broker_from_env(tmp_path)


async def test_an_external_broker_that_is_not_there_is_named() -> None:
    broker = ExternalBroker(f"127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match=broker.bootstrap):
        await broker.start()
    with pytest.raises(PlatformFailure, match="isn't ours"):
        broker.kill()


async def test_an_external_broker_is_used_and_left_running(broker: Broker) -> None:
    external = ExternalBroker(broker.bootstrap)
    await external.start()
    await external.stop()
    await create_topic(broker.bootstrap, "still-there")


async def test_without_java_apache_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match="Java 17"):
        await ApacheBroker(tmp_path / "kafka").start()


async def test_without_maven_apache_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apache, "cache_directory", lambda kind: tmp_path / kind)
    monkeypatch.setattr(apache, "find_java", lambda: Path(os.devnull))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="Maven"):
        await ApacheBroker(tmp_path / "kafka").start()
