"""What topics and the audit log say at the end: the rules that no crash may break."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import TopicPartition

from shared import topics
from shared.bus.consumer import MendingConsumer
from shared.events.access import FIRST_PREV
from shared.events.changes import VaultChange, VaultChangeKind
from shared.events.notices import Notice
from tests.chaos.clients import Told

CHANGES = (topics.VAULT_CHANGES, topics.POLICY_CHANGES)
RECORDED = (*CHANGES, topics.ACCESS)
"""Topics of which every message stands in the audit log, once."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One message as it is kept."""

    topic: str
    partition: int
    offset: int
    type: str
    headers: dict[str, str]
    payload: bytes

    @property
    def body(self) -> dict[str, Any]:
        return orjson.loads(self.payload)


async def read_all(bootstrap: str, *names: str) -> dict[str, list[Kept]]:
    """Every committed message of these topics, in the order of each partition."""
    consumer = MendingConsumer(
        *names,
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    found: dict[str, list[Kept]] = {name: [] for name in names}
    try:
        partitions = sorted(consumer.assignment())
        assert {where.topic for where in partitions} == set(names)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(where) < ends[where] for where in partitions]):
            for where, batch in (await consumer.getmany(timeout_ms=200)).items():
                found[where.topic] += [_kept(where, message) for message in batch]
    finally:
        await consumer.stop()
    return found


def _kept(where: TopicPartition, message: Any) -> Kept:
    headers = {name: value.decode() for name, value in message.headers}
    return Kept(where.topic, where.partition, message.offset, headers.get("ce_type", ""), headers, message.value or b"")


def calls_for_a_notice(message: Kept) -> bool:
    """Whether a change ends something somewhere."""
    body = message.body
    if message.type == VaultChange.TYPE:
        return body["kind"] == VaultChangeKind.ROTATED
    return bool(body.get("ended"))


def check_changes_are_announced_once(found: dict[str, list[Kept]]) -> None:
    """No change is told twice, and each that ends something has exactly one notice, by id."""
    changes = [message for name in CHANGES for message in found[name]]
    ids = Counter(message.body["id"] for message in changes)
    assert not [each for each, times in ids.items() if times > 1]
    notices = defaultdict(set)
    for message in found[topics.NOTICES]:
        if message.type == Notice.TYPE:
            notices[message.body["cause_id"]].add(message.body["id"])
    ending = {message.body["id"] for message in changes if calls_for_a_notice(message)}
    assert {cause: len(notices[cause]) for cause in ending} == dict.fromkeys(ending, 1)
    assert set(notices) <= ids.keys()


def check_versions_follow(found: dict[str, list[Kept]], reference_id: str, last: int) -> None:
    """Each version that was written was seen, once, in its order."""
    versions = [
        int(message.body["version"])
        for message in found[topics.VAULT_CHANGES]
        if message.body["reference_id"] == reference_id
    ]
    assert versions == list(range(1, last + 1))


def check_streams_are_whole(access: Iterable[Kept]) -> None:
    """Every stream is numbered from 0 without a gap, and each record holds the hash of the one before it."""
    streams = defaultdict(list)
    for message in access:
        streams[message.body["stream"]].append(message)
    for stream, messages in streams.items():
        previous = FIRST_PREV
        for n, message in enumerate(messages):
            assert (message.body["n"], message.body["prev"]) == (n, previous), f"{stream} breaks at {n}"
            previous = hashlib.sha256(message.payload).hexdigest()


def check_no_release_lacks_its_record(access: Iterable[Kept], told: Iterable[Told]) -> None:
    """What a client was given stands in the topic: the record that it was told of, once, with its leases."""
    kept = defaultdict(list)
    for message in access:
        kept[message.body["stream"], message.body["n"]].append(message)
    for answer in told:
        (record,) = kept[answer.stream, answer.n]
        assert hashlib.sha256(record.payload).hexdigest() == answer.hash
        assert record.body["phase"] == "authorised"
        assert {item["lease_id"] for item in record.body["items"]} == answer.leases


def causes(found: dict[str, list[Kept]]) -> Counter[tuple[str, str]]:
    """Everything that the audit log must have, by (topic, id)."""
    return Counter((name, message.body["id"]) for name in RECORDED for message in found[name])


def check_log(records: list[dict[str, Any]], published: Iterable[Kept]) -> None:
    """Numbered densely from 1, in the database as in the topic, and nothing twice."""
    dense = list(range(1, len(records) + 1))
    assert [record["n"] for record in records] == dense
    assert sorted(message.body["n"] for message in published) == dense
    told = Counter(_cause(record) for record in records)
    assert not [each for each, times in told.items() if times > 1]


def _cause(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["cause_topic"], record["cause_id"], record["action"], record.get("entity_id"), record.get("reason")
