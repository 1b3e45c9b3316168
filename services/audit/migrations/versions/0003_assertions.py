"""The assertions that requests came with lately, so that one that is shown twice is noticed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "assertions",
        sa.Column("assertion", sa.Text, primary_key=True),
        sa.Column("resolution_id", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("assertions_by_age", "assertions", ["since"])


def downgrade() -> None:
    op.drop_table("assertions")
