"""The tables of sync, as the migrations make them; without a schema: the connection's search path names it."""

from __future__ import annotations

from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Float, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "keyfob_sync"

_metadata = MetaData()

sources = Table(
    "sources",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("provider", Text),
    Column("origin", Text),
    Column("mount", Text),
    Column("prefix", Text),
    Column("reachable", Boolean),
    Column("deleted", Boolean),
    Column("seq", BigInteger),
    Column("payload", LargeBinary, comment="the record as it was signed: the only part that is believed"),
    Column("signature", LargeBinary),
)

references = Table(
    "known_references",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("source_id", Text),
    Column("path", Text),
    Column("key", Text),
    Column("name", Text),
    Column("version", BigInteger),
    Column("born_at", DateTime(timezone=True), comment="when the entry in the source came to be"),
    Column("state", Text),
    Column("successor_id", Text),
    Column("owner", Text),
    Column("description", Text),
    Column("set_by_admin", ARRAY(Text), comment="which of owner and description a person wrote"),
    Column("changed_at", DateTime(timezone=True)),
    Column("discovered_at", DateTime(timezone=True)),
    Column("gone_at", DateTime(timezone=True)),
    Column("deleted", Boolean),
    Column("seq", BigInteger),
    Column("payload", LargeBinary, comment="the record as it was signed: the only part that is believed"),
    Column("signature", LargeBinary),
)

coverage = Table(
    "coverage",
    _metadata,
    Column("source_id", Text, primary_key=True),
    Column("feed_at", DateTime(timezone=True)),
    Column("feed_messages", BigInteger),
    Column("surveyed_at", DateTime(timezone=True)),
    Column("survey_s", Float),
    Column("seen", Integer),
    Column("denied_folders", Integer),
    Column("older", Integer),
    Column("keys_visible", Boolean),
    Column("why", Text, comment="why the source is not reachable"),
    Column("found_by_feed", BigInteger),
    Column("found_by_sweep", BigInteger),
    Column("found_by_manual", BigInteger),
)

runs = Table(
    "sync_runs",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text),
    Column("asked_by", Text),
    Column("asked_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("parts", JSONB),
)
