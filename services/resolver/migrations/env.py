"""Alembic's entry: everything is in `shared.migrations.environment`."""

from shared.migrations.environment import run

run()
