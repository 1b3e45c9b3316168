"""The tables of the notifier. All of it follows from topics; what is kept is who was expected, and when they acted.

notices      every notice, where it stands in its topic
members      who must act on it, frozen; `dropped_at` once they proved it
departures   the notice that told of an instance's end: until it has converged, the instance is waited for
alerts       the feed for people
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

METADATA: Final = MetaData()
_TIME: Final = DateTime(timezone=True)

notices: Final = Table(
    "notices",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("cause_id", Text, nullable=False),
    Column("topic_offset", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("published_at", _TIME, nullable=False),
    Column("bounds_from", _TIME, nullable=False, comment="by then it was in the topic for certain"),
    Column("converged_at", _TIME, comment="when the last member proved it; null where one only expired"),
    Index("notices_by_cause", "cause_id"),
    Index("notices_by_offset", "topic_offset"),
    Index("notices_by_age", "published_at"),
)

members: Final = Table(
    "members",
    METADATA,
    Column("notice_id", Text, ForeignKey("notices.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("member_id", Text, primary_key=True),
    Column("run", Text, primary_key=True, comment="of a resolver; empty for a gateway"),
    Column("name", Text, nullable=False),
    Column("topic_offset", BigInteger, nullable=False),
    Column("policy_seq", BigInteger),
    Column("catalog_seq", BigInteger),
    Column("dropped_at", _TIME),
    Index("members_waited_for", "member_id", "topic_offset", postgresql_where="dropped_at IS NULL"),
)

departures: Final = Table(
    "departures",
    METADATA,
    Column("instance_id", Text, primary_key=True),
    Column("policy_seq", BigInteger, nullable=False),
    Column("topic_offset", BigInteger, nullable=False),
    Column("at", _TIME, nullable=False),
)

alerts: Final = Table(
    "alerts",
    METADATA,
    Column("n", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
