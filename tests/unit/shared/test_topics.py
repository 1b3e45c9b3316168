"""What each topic keeps, and that order can't be lost by how it is made."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.events.contract import StateRecord
from shared.events.registry import CONTRACTS, by_type
from shared.topics import ACCESS, CATALOG, DEAD_LETTERS, NOTICES, POLICY, RECEIPTS, TOPICS, Topic, dead

ALL = {topic.name: topic for topic in (*TOPICS, *DEAD_LETTERS)}


def test_a_name_stands_for_one_topic() -> None:
    assert len(ALL) == len(TOPICS) + len(DEAD_LETTERS)


@pytest.mark.parametrize("topic", ALL.values(), ids=lambda topic: topic.name)
def test_what_is_ordered_has_exactly_one_partition(topic: Topic) -> None:
    assert (topic.partitions == 1) == topic.ordered


def test_state_and_notices_are_ordered() -> None:
    assert all(ALL[name].ordered for name in (CATALOG, POLICY, NOTICES))


def test_state_is_compacted_and_everything_else_expires() -> None:
    compacted = {topic.name for topic in ALL.values() if topic.kept is None}
    assert compacted == {CATALOG, POLICY}
    for topic in ALL.values():
        policy = topic.config(3)["cleanup.policy"]
        assert policy == ("compact" if topic.name in compacted else "delete")


def test_compaction_waits_until_running_readers_have_read() -> None:
    assert int(ALL[POLICY].config(1)["min.compaction.lag.ms"]) >= 60_000


def test_what_expires_does_so_in_milliseconds() -> None:
    assert ALL[ACCESS].kept == timedelta(days=30)
    assert ALL[ACCESS].config(1)["retention.ms"] == "2592000000"


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "4")])
def test_an_acknowledged_message_outlives_a_broker(replication: int, in_sync: str) -> None:
    for topic in ALL.values():
        config = topic.config(replication)
        assert config["min.insync.replicas"] == in_sync
        assert config["unclean.leader.election.enable"] == "false"


def test_dead_letters_are_for_effects_and_never_for_state() -> None:
    dead_of = {name.removesuffix(".dead") for name in (topic.name for topic in DEAD_LETTERS)}
    assert not dead_of & {CATALOG, POLICY}
    assert dead(ACCESS) in ALL


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.TYPE)
def test_a_contract_travels_on_a_topic_that_exists_and_state_only_on_compacted_ones(
    contract: type[StateRecord],
) -> None:
    topic = ALL[contract.TOPIC]
    assert issubclass(contract, StateRecord) == (topic.kept is None)


def test_no_two_contracts_share_a_type() -> None:
    assert len({contract.TYPE for contract in CONTRACTS}) == len(CONTRACTS)
    states = tuple(contract for contract in CONTRACTS if issubclass(contract, StateRecord))
    assert by_type(states) == {contract.TYPE: contract for contract in states}


def test_when_an_instance_was_heard_is_told_by_the_broker_and_by_nobody_else() -> None:
    stamped = {name for name, topic in ALL.items() if topic.config(1).get("message.timestamp.type") == "LogAppendTime"}
    assert stamped == {RECEIPTS}
