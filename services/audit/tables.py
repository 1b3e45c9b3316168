"""The tables of the audit service.

counter     one row: the newest number of the log, locked while records are being numbered, so that there are no gaps
records     the log: number, natural key of the cause, columns to search by, the payload as published
mentions    which references a record is about
streams     how far each producer's stream of access records was seen
leases      who holds which value, and how that ended
echoes      records that instances were told of and that are not on record, or not yet
assertions  what requests came with in the last minutes, by digest, and which request was the first
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData()
_TIME: Final = DateTime(timezone=True)

counter: Final = Table(
    "counter",
    METADATA,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
)

records: Final = Table(
    "records",
    METADATA,
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("cause_topic", Text, nullable=False),
    Column("cause_key", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    Column("action", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("instance_id", Text, nullable=False),
    Column("instance_name", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("cause_hash", Text, nullable=False, comment="of an access record's payload; empty for other causes"),
    # The last line against recording twice, should the counter's lock ever be bypassed.
    UniqueConstraint("cause_topic", "cause_key"),
    Index("records_by_time", "at"),
    Index("records_by_actor", "actor", "n"),
    Index("records_by_instance", "instance_id", "n"),
)

mentions: Final = Table(
    "mentions",
    METADATA,
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("position", SmallInteger, primary_key=True, autoincrement=False),
    Column("reference_id", Text, nullable=False),
    Column("reference_name", Text, nullable=False),
    Index("mentions_by_id", "reference_id", "n"),
    Index("mentions_by_name", "reference_name", "n"),
)

streams: Final = Table(
    "streams",
    METADATA,
    Column("stream", Text, primary_key=True),
    Column("n", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

leases: Final = Table(
    "leases",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("reference_id", Text, nullable=False),
    Column("reference_name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("subject_idp", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("instance_id", Text, nullable=False),
    Column("instance_name", Text, nullable=False),
    Column("server_id", Text, nullable=False),
    Column("server_name", Text, nullable=False),
    Column("opened_at", _TIME, nullable=False),
    Column("expires_at", _TIME, nullable=False),
    Column("released", Boolean, nullable=False),
    Index("leases_by_reference", "reference_id", "expires_at"),
    Index("leases_by_instance", "instance_id", "expires_at"),
)

endings: Final = Table(
    "endings",
    METADATA,
    Column("lease_id", Text, primary_key=True),
    Column("instance_id", Text, primary_key=True, comment="who said so; empty: the resolver, which withdrew it"),
    Column("at", _TIME, nullable=False),
    Column("why", Text, nullable=False),
)
"""Apart from `leases`, as a receipt may arrive before the record that it is about; only its own instance ends one."""

echoes: Final = Table(
    "echoes",
    METADATA,
    Column("stream", Text, primary_key=True),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", Text, primary_key=True),
    Column("instance_id", Text, primary_key=True),
    Column("at", _TIME, nullable=False),
    Column("since", _TIME, nullable=False),
    Index("echoes_by_age", "since"),
)

assertions: Final = Table(
    "assertions",
    METADATA,
    Column("assertion", Text, primary_key=True),
    Column("resolution_id", Text, nullable=False),
    Column("since", _TIME, nullable=False),
    Index("assertions_by_age", "since"),
)
