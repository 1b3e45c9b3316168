"""The log, what it mentions, streams, leases, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shared.outbox.tables import create_statements, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "keyfob_audit"
_TIME = sa.DateTime(timezone=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def upgrade() -> None:
    for statement in create_statements(SCHEMA):
        op.execute(statement)
    op.create_table(
        "counter",
        sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO counter (id, n) VALUES (1, 0)")
    _create_log()
    _create_leases()


def _create_log() -> None:
    op.create_table(
        "records",
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        _text("cause_topic"),
        _text("cause_key"),
        sa.Column("at", _TIME, nullable=False),
        _text("action"),
        _text("actor"),
        _text("instance_id"),
        _text("instance_name"),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("cause_topic", "cause_key"),
    )
    op.create_index("records_by_time", "records", ["at"])
    op.create_index("records_by_actor", "records", ["actor", "n"])
    op.create_index("records_by_instance", "records", ["instance_id", "n"])
    op.create_table(
        "mentions",
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.SmallInteger, primary_key=True, autoincrement=False),
        _text("reference_id"),
        _text("reference_name"),
    )
    op.create_index("mentions_by_id", "mentions", ["reference_id", "n"])
    op.create_index("mentions_by_name", "mentions", ["reference_name", "n"])
    op.create_table(
        "streams",
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("n", sa.BigInteger, nullable=False),
        _text("hash"),
    )


def _create_leases() -> None:
    names = ("reference_id", "reference_name", "version", "field", "subject", "subject_idp", "context")
    places = ("instance_id", "instance_name", "server_id", "server_name")
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.Text, primary_key=True),
        *map(_text, (*names, *places)),
        sa.Column("opened_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
    )
    op.create_index("leases_by_reference", "leases", ["reference_id", "expires_at"])
    op.create_index("leases_by_instance", "leases", ["instance_id", "expires_at"])
    op.create_table(
        "endings",
        sa.Column("lease_id", sa.Text, primary_key=True),
        sa.Column("instance_id", sa.Text, primary_key=True),
        sa.Column("at", _TIME, nullable=False),
        _text("why"),
    )


def downgrade() -> None:
    for table in ("endings", "leases", "streams", "mentions", "records", "counter"):
        op.drop_table(table)
    for table in reversed(outbox_tables(sa.MetaData(), SCHEMA).all()):
        op.execute(sa.schema.DropTable(table))
