"""Two hospitals: a database each with a role, a password and patients of its own, rotated as their admins would."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

from services.dev.platform import OpenBao, Postgres

PATIENTS = {
    "hospital_a": ("Ada Alder", "Anton Ash", "Anya Aspen"),
    "hospital_b": ("Bela Birch", "Boris Beech", "Britta Boxwood"),
}


@dataclass(slots=True)
class Hospital:
    """One hospital; `used` keeps every password that it ever had, for the search at the end."""

    name: str
    postgres: Postgres
    openbao: OpenBao
    used: list[str] = field(default_factory=list, repr=False)

    @property
    def path(self) -> str:
        """Where its connection URL lies in the secret manager, and so the reference's name: `hospital-a/db-url`."""
        return f"{self.profile}/db-url"

    @property
    def profile(self) -> str:
        """The profile of those who work for it: `hospital-a`."""
        return self.name.replace("_", "-")

    @property
    def patients(self) -> list[str]:
        """Who is in its database."""
        return sorted(PATIENTS[self.name])

    @property
    def url(self) -> str:
        """The connection URL as `mcp-alchemy` wants it, with the present password."""
        return self.postgres.dsn(self.name, self.name).replace("postgresql://", "postgresql+psycopg2://", 1)

    def _new_password(self) -> str:
        password = secrets.token_urlsafe(24)
        self.used.append(password)
        return password

    async def open(self) -> None:
        """Create the database with its patients, and put its URL into the secret manager."""
        password = self._new_password()
        await self.postgres.create_database(self.name, owner=self.name, password=password)
        connection = await asyncpg.connect(self.postgres.dsn(self.name, self.name))
        try:
            await connection.execute("CREATE TABLE IF NOT EXISTS patients (name text PRIMARY KEY)")
            await connection.executemany(
                "INSERT INTO patients VALUES ($1) ON CONFLICT DO NOTHING", [(name,) for name in self.patients]
            )
        finally:
            await connection.close()
        await self._publish()

    async def rotate(self) -> datetime:
        """Change the role's password, cut its connections, write the new URL to the secret manager.

        Returns when the write to the secret manager began.
        """
        password = self._new_password()
        await self.postgres.set_password(self.name, password)
        # Sessions outlive a change of password: without the cut, nothing would show that the new one is needed.
        await self.postgres.disconnect(self.name)
        written_at = datetime.now(UTC)
        await self._publish()
        return written_at

    async def _publish(self) -> None:
        await self.openbao.put(self.path, {"value": self.url})
