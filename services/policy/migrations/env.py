"""Alembic's entry: all services share one."""

from shared.migrations.environment import run

run()
