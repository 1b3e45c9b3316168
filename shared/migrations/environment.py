"""Runs one service's migrations on the connection that `shared.database.migrate` opened.

A service's `migrations/env.py` is one call of `run`.
"""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Apply what Alembic decided, in the service's own schema, version table included."""
    attributes = context.config.attributes
    context.configure(connection=attributes["connection"], version_table_schema=attributes["schema"])
    with context.begin_transaction():
        context.run_migrations()
