"""Installation keys, rotations, sealed values, what replicas hold, and the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

from shared.outbox.tables import create_statements, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "keyfob_resolver"
_TIME = sa.DateTime(timezone=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def upgrade() -> None:
    for statement in create_statements(SCHEMA):
        op.execute(statement)
    _create_keys()
    _create_values()


def _create_keys() -> None:
    op.create_table(
        "generations",
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.Text, nullable=False, unique=True),
        sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('current', 'former', 'retired')"), nullable=False),
        sa.Column("recovery", sa.LargeBinary, nullable=True),
        sa.Column("since", _TIME, nullable=False),
        _text("made_by_idp"),
        _text("made_by"),
        sa.Column("retired_at", _TIME, nullable=True),
    )
    # Two current keys would be two answers to what seals the next value.
    op.create_index(
        "one_current_generation", "generations", ["state"], unique=True, postgresql_where=sa.text("state = 'current'")
    )
    op.create_table(
        "rotations",
        sa.Column("n", sa.Integer, sa.ForeignKey("generations.n"), primary_key=True, autoincrement=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("damaged", sa.BigInteger, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME, nullable=True),
    )
    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.Text, primary_key=True),
        sa.Column("key_ids", ARRAY(sa.Text), nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
    )


def _create_values() -> None:
    op.create_table(
        "local_values",
        sa.Column("id", sa.Text, primary_key=True),
        *map(_text, ("owner_kind", "owner", "server_id", "field")),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=True),
        sa.Column("wrap", sa.LargeBinary, nullable=True),
        sa.Column("kek_id", sa.Text, nullable=True),
        sa.Column("set_at", _TIME, nullable=False),
        _text("set_by_idp"),
        _text("set_by"),
        sa.Column("last_used_at", _TIME, nullable=True),
        sa.Column("deleted_at", _TIME, nullable=True),
        sa.UniqueConstraint("owner_kind", "owner", "server_id", "field"),
        # What was deleted is gone at once; only that it was there stays, with the version that must never come again.
        sa.CheckConstraint("(deleted_at IS NULL) = (num_nonnulls(sealed, wrap, kek_id) = 3)"),
        sa.CheckConstraint("(deleted_at IS NOT NULL) = (num_nonnulls(sealed, wrap, kek_id) = 0)"),
    )
    op.create_index("local_values_by_key", "local_values", ["kek_id"])


def downgrade() -> None:
    for table in ("local_values", "replicas", "rotations", "generations"):
        op.drop_table(table)
    for table in reversed(outbox_tables(sa.MetaData(), SCHEMA).all()):
        op.execute(sa.schema.DropTable(table))
