"""The tables that every service with state keeps in its own schema.

commit_counter   one row: the newest commit of this service. Its row lock is held until commit, so numbers are
                 dense and their order is the order of commits.
outbox           what commits said and the relay has not yet published; (seq, position) is the order.
relay_progress   one row: the newest commit that the relay knows to be in the topics.
"""

from __future__ import annotations

from dataclasses import dataclass

from alembic.operations import Operations
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Executable,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    insert,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateTable, DropTable


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxTables:
    """The three tables of one schema."""

    commit_counter: Table
    outbox: Table
    relay_progress: Table

    def all(self) -> tuple[Table, ...]:
        """In the order in which they are made."""
        return self.commit_counter, self.outbox, self.relay_progress


def outbox_tables(metadata: MetaData, schema: str) -> OutboxTables:
    """Declare the tables of `schema` in `metadata`; twice is the same as once."""
    return OutboxTables(
        commit_counter=_single_row(metadata, schema, "commit_counter", Column("seq", BigInteger, nullable=False)),
        outbox=Table(
            "outbox",
            metadata,
            Column("seq", BigInteger, primary_key=True, autoincrement=False),
            Column("position", Integer, primary_key=True, autoincrement=False),
            Column("parts", Integer, nullable=False, comment="messages of this commit"),
            Column("commit_id", Uuid, nullable=False, comment="tells this commit from another with its number"),
            Column("topic", Text, nullable=False),
            Column("key", Text, nullable=False),
            Column("headers", JSONB, nullable=False),
            Column("payload", LargeBinary, nullable=False),
            Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
            schema=schema,
            keep_existing=True,
        ),
        relay_progress=_single_row(
            metadata,
            schema,
            "relay_progress",
            Column("published_seq", BigInteger, nullable=False),
        ),
    )


def create_outbox(op: Operations, schema: str) -> None:
    """Make the tables, for a migration's `upgrade`."""
    for statement in create_statements(schema):
        op.execute(statement)


def drop_outbox(op: Operations, schema: str) -> None:
    """Drop the tables, for a migration's `downgrade`."""
    for table in reversed(outbox_tables(MetaData(), schema).all()):
        op.execute(DropTable(table))


def create_statements(schema: str) -> tuple[Executable, ...]:
    """The DDL and the first rows."""
    tables = outbox_tables(MetaData(), schema)
    return (
        *(CreateTable(table) for table in tables.all()),
        insert(tables.commit_counter).values(id=1, seq=0),
        insert(tables.relay_progress).values(id=1, published_seq=0),
    )


def channel(schema: str) -> str:
    """The NOTIFY channel that wakes the relay of this schema."""
    return f"{schema}_outbox"


def _single_row(metadata: MetaData, schema: str, name: str, *columns: Column[int]) -> Table:
    return Table(
        name,
        metadata,
        # A second row could never be told from the first one, so there can't be one.
        Column("id", SmallInteger, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        *columns,
        schema=schema,
        keep_existing=True,
    )
