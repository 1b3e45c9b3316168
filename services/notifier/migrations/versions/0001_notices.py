"""Notices, who must act on them, and the alert feed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("cause_id", sa.Text, nullable=False),
        sa.Column("topic_offset", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("published_at", _TIME, nullable=False),
        sa.Column("bounds_from", _TIME, nullable=False),
        sa.Column("converged_at", _TIME),
    )
    op.create_index("notices_by_cause", "notices", ["cause_id"])
    op.create_index("notices_by_offset", "notices", ["topic_offset"])
    op.create_index("notices_by_age", "notices", ["published_at"])
    op.create_table(
        "members",
        sa.Column("notice_id", sa.Text, sa.ForeignKey("notices.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("member_id", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("topic_offset", sa.BigInteger, nullable=False),
        sa.Column("policy_seq", sa.BigInteger),
        sa.Column("catalog_seq", sa.BigInteger),
        sa.Column("dropped_at", _TIME),
    )
    op.create_index(
        "members_waited_for", "members", ["member_id", "topic_offset"], postgresql_where=sa.text("dropped_at IS NULL")
    )
    op.create_table(
        "departures",
        sa.Column("instance_id", sa.Text, primary_key=True),
        sa.Column("policy_seq", sa.BigInteger, nullable=False),
        sa.Column("topic_offset", sa.BigInteger, nullable=False),
        sa.Column("at", _TIME, nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("n", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    for table in ("alerts", "departures", "members", "notices"):
        op.drop_table(table)
