"""Alembic's entry for the audit service's migrations."""

from shared.migrations.environment import run

run()
