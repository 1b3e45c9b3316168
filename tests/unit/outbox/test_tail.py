"""The newest commit of a topic is found from its end, whatever markers and strangers' records lie there."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings
from shared.errors import Unavailable
from shared.outbox import tail as tail_module
from shared.outbox.tail import EMPTY, EXPIRED, Tail, read_tail, tail_of
from tests.fakes.kafka_topic import FakeRecord

TOPIC = "keyfob.tests-state.v1"


def commit_id(seq: int) -> uuid.UUID:
    return uuid.UUID(int=seq)


def headers(seq: int) -> tuple[tuple[str, bytes], ...]:
    return ("ce_commitseq", str(seq).encode()), ("ce_commitid", str(commit_id(seq)).encode())


class Broker:
    """One topic whose offsets hold a commit's record, a stranger's one, or a marker that nobody sees."""

    def __init__(self, log: list[int | str | None], *, beginning: int = 0, partitions: set[int] | None = None) -> None:
        self.log = log
        self.beginning = beginning
        self.partitions = {0} if partitions is None else partitions
        self.stopped = 0
        self.assigned: list[TopicPartition] = []
        self.fetched = 0
        self._at = 0

    def consumer(self, **settings: Any) -> Broker:
        assert settings == {"auto_offset_reset": "none"}
        return self

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = partitions

    async def start(self) -> None:
        """Connected."""

    async def stop(self) -> None:
        self.stopped += 1

    def partitions_for_topic(self, _: str) -> set[int]:
        return self.partitions

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.beginning)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, len(self.log))

    def seek(self, _: TopicPartition, offset: int) -> None:
        assert offset >= self.beginning
        self._at = offset

    async def position(self, _: TopicPartition) -> int:
        return self._at

    async def getmany(self, partition: TopicPartition, *, timeout_ms: int) -> dict[TopicPartition, list[FakeRecord]]:
        found = []
        while self._at < len(self.log) and len(found) < 10:
            said = self.log[self._at]
            if said is not None:
                extra = headers(said) if isinstance(said, int) else (("ce_commitseq", said.encode()),)
                found.append(FakeRecord(TOPIC, self._at, b"k", b"", extra))
            self._at += 1
        self.fetched += len(found)
        return {partition: found}


async def tail(broker: Broker, *, log_key: str | None = None) -> Tail:
    found = await read_tail(cast("KafkaSettings", broker), TOPIC, within_s=5, log_key=log_key)
    assert broker.stopped == 1
    return found


async def test_an_empty_topic_has_no_commit() -> None:
    assert await tail(Broker([])) == EMPTY


async def test_the_newest_commit_is_that_of_the_highest_number() -> None:
    """Compaction leaves gaps, and nothing else changes the order; a stranger may still write an old number."""
    assert await tail(Broker([1, 2, 2, None, 3, None])) == Tail(3, commit_id(3))
    assert await tail(Broker([1, 9, 3])) == Tail(9, commit_id(9))


async def test_strangers_records_are_stepped_over() -> None:
    assert await tail(Broker([4, "x", "", "-"])) == Tail(4, commit_id(4))


async def test_it_looks_further_back_until_it_finds_one() -> None:
    broker = Broker([1, *[None] * 3000])
    assert await tail(broker) == Tail(1, commit_id(1))


async def test_it_reads_no_more_than_it_must() -> None:
    broker = Broker(list(range(1, 5001)))
    assert (await tail(broker)).seq == 5000
    assert broker.fetched <= 2 * tail_module.FIRST_STEP


@given(st.lists(st.none() | st.just("x") | st.integers(1, 9), max_size=40), st.integers(1, 5), st.integers(0, 10))
def test_whatever_was_compacted_away_the_newest_commit_that_is_left_is_found(
    kinds: list[int | str | None], step: int, compacted: int
) -> None:
    log = [offset if isinstance(kind, int) else kind for offset, kind in enumerate(kinds, 1)]
    beginning = min(compacted, len(log))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail_module, "FIRST_STEP", step)
        found = asyncio.run(tail(Broker(log, beginning=beginning)))
    kept = [one for one in log[beginning:] if isinstance(one, int)]
    assert found == (Tail(kept[-1], commit_id(kept[-1])) if kept else EMPTY)


@pytest.mark.parametrize("partitions", [set(), {0, 1}, {1}])
async def test_state_that_is_not_in_exactly_one_partition_has_no_tail(partitions: set[int]) -> None:
    with pytest.raises(Unavailable, match="more than one partition"):
        await tail(Broker([1], partitions=partitions))


class TestLog:
    async def test_a_log_is_in_the_partition_of_its_key(self) -> None:
        broker = Broker([1, 2], partitions=set(range(6)))
        assert (await tail(broker, log_key="log/one")).seq == 2
        (first,) = broker.assigned
        assert (await tail(other := Broker([1, 2], partitions=set(range(6))), log_key="log/one")).seq == 2
        assert other.assigned == [first]
        assert first.partition in range(6)

    async def test_a_log_that_keeps_nothing_for_so_long_has_expired(self) -> None:
        assert await tail(Broker([1, 2, 3], beginning=3), log_key="log/one") == EXPIRED

    async def test_a_log_that_never_held_anything_has_not(self) -> None:
        assert await tail(Broker([]), log_key="log/one") == EMPTY

    async def test_a_topic_of_state_does_not_expire(self) -> None:
        assert await tail(Broker([1, 2, 3], beginning=3)) == EMPTY

    async def test_a_topic_that_may_not_be_described_says_so(self) -> None:
        with pytest.raises(Unavailable, match="not permitted"):
            await tail(Broker([1], partitions=set()), log_key="log/one")


async def test_a_broker_that_never_answers_is_given_up_and_let_go() -> None:
    class Silent(Broker):
        async def start(self) -> None:
            await asyncio.Event().wait()

    broker = Silent([1])
    with pytest.raises(TimeoutError):
        await read_tail(cast("KafkaSettings", broker), TOPIC, within_s=0.01)
    assert broker.stopped == 1


@pytest.mark.parametrize(
    ("seq", "id_"),
    [
        (None, "x"),
        (b"", str(commit_id(1)).encode()),
        (b"1", b""),
        (b"1", b"not-an-id"),
        (b"\xff", b"\xff"),
        (b"1", None),
    ],
)
def test_a_message_without_a_whole_claim_belongs_to_no_commit(seq: bytes | None, id_: bytes | None) -> None:
    said = (("ce_commitseq", seq), ("ce_commitid", id_))
    found = tuple((name, value) for name, value in said if isinstance(value, bytes))
    assert tail_of(Message(topic=TOPIC, key="k", value=b"", headers=found)) is None
