"""Sources, references, coverage, manual syncs and the outbox."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

from shared.outbox.tables import create_statements, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TEXT = sa.Text(collation="C")
"""Ids and names sort by their bytes, so that a page ends where the next begins."""


def _time(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    for statement in create_statements(schema):
        op.execute(statement)
    _sources(schema)
    _references(schema)
    _coverage(schema)
    _runs(schema)


def _sources(schema: str) -> None:
    op.create_table(
        "sources",
        sa.Column("id", _TEXT, primary_key=True),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("mount", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("reachable", sa.Boolean, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        schema=schema,
    )
    living = sa.text("NOT deleted")
    op.create_index("sources_name", "sources", ["name"], unique=True, schema=schema, postgresql_where=living)


def _references(schema: str) -> None:
    op.create_table(
        "known_references",
        sa.Column("id", _TEXT, primary_key=True),
        sa.Column("source_id", _TEXT, sa.ForeignKey(f"{schema}.sources.id"), nullable=False),
        sa.Column("path", _TEXT, nullable=False),
        sa.Column("key", _TEXT),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        _time("born_at"),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("successor_id", sa.Text),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("set_by_admin", sa.ARRAY(sa.Text), nullable=False),
        _time("changed_at"),
        _time("discovered_at"),
        _time("gone_at", nullable=True),
        sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        schema=schema,
    )
    # Paths and keys may be longer than an index entry: their digests stand for them.
    op.execute(
        f"CREATE UNIQUE INDEX known_references_place ON {schema}.known_references"
        " (source_id, md5(path), md5(key)) NULLS NOT DISTINCT WHERE NOT deleted"
    )
    op.create_index(
        "known_references_name",
        "known_references",
        ["name"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("NOT deleted"),
    )
    op.create_index("known_references_gone", "known_references", ["source_id", "gone_at"], schema=schema)
    op.create_index("known_references_discovered", "known_references", ["source_id", "discovered_at"], schema=schema)
    op.create_index("known_references_successor", "known_references", ["successor_id"], schema=schema)


def _coverage(schema: str) -> None:
    op.create_table(
        "coverage",
        sa.Column("source_id", _TEXT, sa.ForeignKey(f"{schema}.sources.id"), primary_key=True),
        _time("feed_at", nullable=True),
        sa.Column("feed_messages", sa.BigInteger, nullable=False, server_default="0"),
        _time("surveyed_at", nullable=True),
        sa.Column("survey_s", sa.Float, nullable=False, server_default="0"),
        sa.Column("seen", sa.Integer, nullable=False, server_default="0"),
        sa.Column("denied_folders", sa.Integer, nullable=False, server_default="0"),
        sa.Column("older", sa.Integer, nullable=False, server_default="0"),
        sa.Column("keys_visible", sa.Boolean),
        sa.Column("why", sa.Text, nullable=False, server_default=""),
        sa.Column("found_by_feed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("found_by_sweep", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("found_by_manual", sa.BigInteger, nullable=False, server_default="0"),
        schema=schema,
    )


def _runs(schema: str) -> None:
    op.create_table(
        "sync_runs",
        sa.Column("id", _TEXT, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text, nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        _time("ended_at", nullable=True),
        sa.Column("parts", JSONB, nullable=False),
        schema=schema,
    )
    running = sa.text("state = 'running'")
    op.create_index("sync_runs_running", "sync_runs", ["id"], schema=schema, postgresql_where=running)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    for table in ("sync_runs", "coverage", "known_references", "sources"):
        op.drop_table(table, schema=schema)
    for table in reversed(outbox_tables(sa.MetaData(), schema).all()):
        op.drop_table(table.name, schema=schema)
