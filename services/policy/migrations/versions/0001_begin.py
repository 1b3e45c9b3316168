"""The first tables: the outbox, entities with their links, the running digest, enrolments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from shared.outbox.tables import create_statements, outbox_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = context.config.attributes["schema"]
    for statement in create_statements(schema):
        op.execute(statement)
    key = sa.Text(collation="C")
    op.create_table(
        "entities",
        sa.Column("id", key, primary_key=True),
        sa.Column("kind", key, nullable=False),
        sa.Column("natural_key", key, nullable=False),
        sa.Column("created_seq", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("kind", "natural_key", name="entities_natural_key"),
        schema=schema,
    )
    op.create_index("entities_listed", "entities", ["kind", "created_seq", "id"], schema=schema)
    due = sa.text("due_at IS NOT NULL")
    op.create_index("entities_due", "entities", ["due_at"], schema=schema, postgresql_where=due)
    parent = sa.ForeignKey(f"{schema}.entities.id", ondelete="CASCADE")
    op.create_table(
        "links",
        sa.Column("entity_id", key, parent, primary_key=True),
        sa.Column("target", key, primary_key=True),
        schema=schema,
    )
    op.create_index("links_by_target", "links", ["target", "entity_id"], schema=schema)
    _single_rows(schema)


def _single_rows(schema: str) -> None:
    op.create_table(
        "standing",
        sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("tick_revision", sa.BigInteger, nullable=False),
        sa.Column("ticked_at", sa.DateTime(timezone=True)),
        schema=schema,
    )
    op.execute(f"INSERT INTO {schema}.standing (id, digest, tick_revision) VALUES (1, repeat('0', 64), 0)")  # noqa: S608 - our own name
    key = sa.Text(collation="C")
    op.create_table(
        "enrolments",
        sa.Column("id", key, primary_key=True),
        sa.Column("name", key, nullable=False),
        sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("instance_id", key),
        schema=schema,
    )
    op.create_index("enrolments_listed", "enrolments", ["seq"], schema=schema)
    op.create_index("enrolments_by_name", "enrolments", ["name", "seq"], schema=schema)


def downgrade() -> None:
    schema = context.config.attributes["schema"]
    made = [table.name for table in outbox_tables(sa.MetaData(), schema).all()]
    for table in ("enrolments", "standing", "links", "entities", *reversed(made)):
        op.drop_table(table, schema=schema)
