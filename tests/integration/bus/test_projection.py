"""From a commit in the database to a snapshot in another process's memory, on real parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition
from rpds import HashTrieMap

from services.dev.platform import Broker
from shared.bus.connection import KafkaSettings, TopicsUnsuitable, disconnect, ensure_topics
from shared.bus.whole_topic import Batch, FromOffset, Restarted, WholeTopicReader
from shared.projection.changes import Alert, Change, Upserted
from shared.projection.projection import Projection
from shared.projection.records import registry
from shared.topics import Topic
from tests.fakes.state_topic import Lamp
from tests.integration.bus.conftest import Service, ordered
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

Lamps: TypeAlias = "HashTrieMap[str, str]"


def apply(snapshot: Lamps, change: Change) -> Lamps:
    if not isinstance(change, Upserted):
        return snapshot.discard(change.key)
    assert isinstance(change.record.record, Lamp)
    return snapshot.insert(change.record.key, change.record.record.colour)


@asynccontextmanager
async def projecting(service: Service, alerts: list[Alert] | None = None) -> AsyncIterator[Projection[Lamps]]:
    projection = Projection[Lamps](
        WholeTopicReader(service.kafka, service.state.name),
        known=registry(service.Lamp),
        empty=HashTrieMap(),
        apply=apply,
        on_alert=None if alerts is None else alerts.append,
    )
    task = asyncio.create_task(projection.run())
    try:
        yield projection
    finally:
        task.cancel()
        await asyncio.wait({task})


async def ready(projection: Projection[Lamps]) -> None:
    await until(lambda: projection.ready, within=30)


async def test_a_commit_reaches_the_snapshot_and_keeps_it_fresh(service: Service) -> None:
    async with service.relaying(), projecting(service) as projection:
        seq = await service.commit("a", "b", colour="red")
        assert await projection.wait_for(seq, timeout_s=30)
        assert dict(projection.snapshot.items()) == {"lamp/a": "red", "lamp/b": "red"}
        await until(projection.freshness.is_fresh, within=30)
        seq = await service.commit("a", colour="blue")
        assert await projection.wait_for(seq, timeout_s=30)
        assert projection.snapshot["lamp/a"] == "blue"
        await until(projection.freshness.is_fresh, within=30)


async def test_a_restarted_reader_knows_the_same(service: Service) -> None:
    async with service.relaying():
        for colour in ("red", "green", "blue"):
            seq = await service.commit("a", "b", colour=colour)
        async with projecting(service) as projection:
            assert await projection.wait_for(seq, timeout_s=30)
            await ready(projection)
            assert dict(projection.snapshot.items()) == {"lamp/a": "blue", "lamp/b": "blue"}


async def test_what_a_transaction_has_not_committed_is_never_seen(service: Service) -> None:
    """A relay that dies with half a commit written: the next one aborts it, and readers never saw any of it."""
    producer = service.kafka.producer(transactional_id="keyfob-relay-tests", transaction_timeout_ms=60_000)
    await producer.start()
    await producer.begin_transaction()
    await producer.send_and_wait(service.state.name, b"{}", b"lamp/ghost")
    alerts: list[Alert] = []
    async with projecting(service, alerts) as projection:
        await ready(projection)
        assert projection.position == 0
        async with service.relaying():
            seq = await service.commit("a")
            assert await projection.wait_for(seq, timeout_s=30)
        assert not alerts
    await disconnect(producer)


async def test_an_unreadable_record_denies_alerts_and_heals_by_a_newer_one(service: Service) -> None:
    alerts: list[Alert] = []
    async with service.relaying() as relay, projecting(service, alerts) as projection:
        assert await projection.wait_for(await service.commit("a", "b"), timeout_s=30)
        await until(lambda: relay.published_seq == 1)
        producer = service.kafka.producer()
        await producer.start()
        await producer.send_and_wait(service.state.name, b"\xff", b"lamp/a")
        await producer.stop()
        await until(lambda: "lamp/a" not in projection.snapshot, within=30)
        assert [alert.key for alert in alerts] == ["lamp/a"]
        assert "lamp/b" in projection.snapshot
        assert await projection.wait_for(await service.commit("a"), timeout_s=30)
        assert "lamp/a" in projection.snapshot


async def test_a_key_that_is_no_text_makes_it_not_ready(service: Service) -> None:
    async with projecting(service) as projection:
        await ready(projection)
        producer = service.kafka.producer()
        await producer.start()
        await producer.send_and_wait(service.state.name, b"{}", b"\xff\xfe")
        await producer.stop()
        await until(lambda: not projection.ready, within=30)
        assert "no usable key" in str(projection.reason)


async def test_partitions_that_grew_make_it_not_ready_for_good(service: Service) -> None:
    async with service.relaying(), projecting(service) as projection:
        assert await projection.wait_for(await service.commit("a"), timeout_s=30)
        await _grow(service.kafka, service.state)
        await until(lambda: not projection.ready, within=30)
        assert "2 partitions" in str(projection.reason)
        assert not projection.freshness.is_fresh()
    with pytest.raises(TopicsUnsuitable, match="exactly 1"):
        await ensure_topics(service.kafka, [service.state])


async def _grow(kafka: KafkaSettings, topic: Topic) -> None:
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    answer = await admin.create_partitions({topic.name: NewPartitions(total_count=2)})
    await admin.close()
    if any(code for _, code, *_ in answer.topic_errors):
        pytest.skip("this broker can't add partitions")


async def test_a_reader_whose_records_are_gone_is_told_to_start_over(service: Service) -> None:
    async with service.relaying() as relay:
        for name in "abc":
            await service.commit(name)
        await until(lambda: relay.published_seq == 3, within=30)
    (*_, last) = await service.published(service.changes)
    await _forget_before(service.kafka, service.changes, last.offset)
    reader = WholeTopicReader(service.kafka, service.changes.name, start=FromOffset(0))
    reads = aiter(reader)
    restarted = await asyncio.wait_for(anext(reads), 30)
    assert isinstance(restarted, Restarted)
    assert restarted.position == last.offset
    batch = await asyncio.wait_for(anext(reads), 30)
    assert isinstance(batch, Batch)
    assert [message.offset for message in batch.messages] == [last.offset]
    await reader.close()


async def _forget_before(kafka: KafkaSettings, topic: Topic, offset: int) -> None:
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        partition = TopicPartition(topic.name, 0)
        await admin.delete_records({partition: RecordsToDelete(before_offset=offset)})
    except Exception as error:  # noqa: BLE001 - a broker that can't
        pytest.skip(f"this broker can't delete records: {type(error).__name__}")
    finally:
        await admin.close()


async def test_a_restart_of_the_broker_ends_freshness_and_then_it_is_fresh_again(
    service_on_own_broker: Service, own_broker: Broker
) -> None:
    service = service_on_own_broker
    async with service.relaying(), projecting(service) as projection:
        assert await projection.wait_for(await service.commit("a"), timeout_s=30)
        await until(projection.freshness.is_fresh, within=30)
        await own_broker.stop()
        await until(lambda: not projection.freshness.is_fresh(), within=30)
        assert projection.ready
        await own_broker.start()
        assert await projection.wait_for(await service.commit("b"), timeout_s=60)
        await until(projection.freshness.is_fresh, within=30)
        assert set(projection.snapshot) == {"lamp/a", "lamp/b"}


async def test_topics_can_be_ensured_twice_and_at_the_same_time(kafka: KafkaSettings) -> None:
    topics = [ordered("tests-twice", compacted=True), ordered("tests-twice")]
    await asyncio.gather(*(ensure_topics(kafka, topics) for _ in range(3)))
    await ensure_topics(kafka, topics)
