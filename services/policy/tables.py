"""The tables of policy, beside those of the outbox.

entities     every living entity, once, as the signed bytes that are in the topic
links        what entities can be found by: other entities, references, groups, issuers, keys
standing     one row: the digest of all living records, and the last tick
enrolments   promises to accept an instance, signed as well; of a token only its SHA-256
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA: Final = MetaData()
_AS_BYTES: Final = "C"
"""Collation: keys are compared byte by byte, whatever the database was made with."""

entities: Final = Table(
    "entities",
    METADATA,
    Column("id", Text(collation=_AS_BYTES), primary_key=True),
    Column("kind", Text(collation=_AS_BYTES), nullable=False),
    Column("natural_key", Text(collation=_AS_BYTES), nullable=False),
    Column("created_seq", BigInteger, nullable=False, comment="commit that made it: the order of lists"),
    Column("seq", BigInteger, nullable=False, comment="commit that last changed it"),
    Column("event_id", Text, nullable=False, comment="the event that told of it"),
    Column("payload", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("due_at", DateTime(timezone=True), comment="when something happens to it by itself"),
    UniqueConstraint("kind", "natural_key", name="entities_natural_key"),
    Index("entities_listed", "kind", "created_seq", "id"),
    Index("entities_due", "due_at", postgresql_where="due_at IS NOT NULL"),
)

links: Final = Table(
    "links",
    METADATA,
    Column("entity_id", Text(collation=_AS_BYTES), ForeignKey("entities.id", ondelete="CASCADE"), primary_key=True),
    Column("target", Text(collation=_AS_BYTES), primary_key=True),
    Index("links_by_target", "target", "entity_id"),
)

standing: Final = Table(
    "standing",
    METADATA,
    Column("id", SmallInteger, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
    Column("tick_revision", BigInteger, nullable=False),
    Column("ticked_at", DateTime(timezone=True)),
)

enrolments: Final = Table(
    "enrolments",
    METADATA,
    Column("id", Text(collation=_AS_BYTES), primary_key=True),
    Column("name", Text(collation=_AS_BYTES), nullable=False),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("seq", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("instance_id", Text(collation=_AS_BYTES), comment="whom it let in"),
    Index("enrolments_listed", "seq"),
    Index("enrolments_by_name", "name", "seq"),
)
