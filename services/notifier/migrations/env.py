"""Alembic's entry for the notifier's migrations."""

from shared.migrations.environment import run

run()
