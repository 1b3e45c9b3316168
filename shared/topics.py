"""The topics: names, partitions and what is kept. The table of the architecture, as code.

Topics of state (`compacted`) and `notices` have exactly one partition, forever: their order is the product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

CATALOG = "keyfob.catalog.v1"
POLICY = "keyfob.policy.v1"
VAULT_CHANGES = "keyfob.vault-changes.v1"
POLICY_CHANGES = "keyfob.policy-changes.v1"
CUSTODY_CHANGES = "keyfob.custody-changes.v1"
ACCESS = "keyfob.access.v1"
NOTICES = "keyfob.notices.v1"
RECEIPTS = "keyfob.receipts.v1"
ALERTS = "keyfob.alerts.v1"
AUDIT = "keyfob.audit.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """How one topic is made. `kept` is None for compacted topics, which keep the last record of every key."""

    name: str
    partitions: int
    kept: timedelta | None
    ordered: bool
    """True where a second partition would break the meaning: such a topic may never grow."""

    stamped_by_broker: bool = False
    """True where a time is proof: the broker's own clock, whatever the producer's says."""

    def config(self, replication: int) -> dict[str, str]:
        """Kafka topic configuration; with three replicas two must have written before an ack."""
        durable = {
            "min.insync.replicas": str(max(1, replication - 1)),
            "unclean.leader.election.enable": "false",
        }
        if self.stamped_by_broker:
            durable["message.timestamp.type"] = "LogAppendTime"
        if self.kept is None:
            return durable | {"cleanup.policy": "compact", "min.compaction.lag.ms": "60000"}
        return durable | {
            "cleanup.policy": "delete",
            "retention.ms": str(int(self.kept.total_seconds() * 1000)),
        }


def _state(name: str) -> Topic:
    return Topic(name=name, partitions=1, kept=None, ordered=True)


def _ordered(name: str, days: int) -> Topic:
    return Topic(name=name, partitions=1, kept=timedelta(days=days), ordered=True)


def _spread(name: str, days: int) -> Topic:
    return Topic(name=name, partitions=6, kept=timedelta(days=days), ordered=False)


TOPICS: tuple[Topic, ...] = (
    _state(CATALOG),
    _state(POLICY),
    _ordered(VAULT_CHANGES, 30),
    _ordered(POLICY_CHANGES, 30),
    _ordered(CUSTODY_CHANGES, 30),
    _spread(ACCESS, 30),
    _ordered(NOTICES, 7),
    # When an instance was last heard decides whether it may still hold a value.
    replace(_spread(RECEIPTS, 7), stamped_by_broker=True),
    _ordered(ALERTS, 30),
    _spread(AUDIT, 30),
)


def dead(topic: str) -> str:
    """Where a message of effects goes that was tried often enough."""
    return f"{topic}.dead"


# None for state: there a record that can't be read denies, and is never set aside and passed over.
DEAD_LETTERS: tuple[Topic, ...] = tuple(
    _ordered(dead(name), 30)
    for name in (VAULT_CHANGES, POLICY_CHANGES, CUSTODY_CHANGES, ACCESS, RECEIPTS, ALERTS, NOTICES)
)
