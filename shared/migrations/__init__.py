"""What the Alembic environments of all services have in common."""
