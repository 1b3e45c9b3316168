"""The hash of each access record, and the records that instances were told of and that are not here yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("records", sa.Column("cause_hash", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "echoes",
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.Text, primary_key=True),
        sa.Column("instance_id", sa.Text, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("echoes_by_age", "echoes", ["since"])


def downgrade() -> None:
    op.drop_table("echoes")
    op.drop_column("records", "cause_hash")
