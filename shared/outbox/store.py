"""The relay's SQL, on its dedicated connection. Commits are whole or not there at all."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import asyncpg

from shared.bus.cloudevents import Message
from shared.errors import KeyfobError
from shared.outbox.continuation import Counters

BATCH_ROWS = 500
"""Messages looked at in one go; one commit may hold more."""

BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredCommit:
    """One whole commit, its messages in order."""

    seq: int
    messages: tuple[Message, ...]


class OutboxDamaged(KeyfobError):
    """Raised when messages of a commit are missing: what comes behind it must not be published either."""

    kind: ClassVar[str] = "outbox-damaged"
    title: ClassVar[str] = "Somebody removed messages from the outbox"


class OutboxStore:
    """Reads and clears the outbox of one schema."""

    def __init__(self, connection: asyncpg.Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def try_lock(self) -> bool:
        """Become the one relay of this schema for as long as the connection lives."""
        name = f"keyfob-relay:{self._schema}"
        held: bool = await self._connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", name)
        return held

    async def counters(self) -> Counters:
        """The newest commit, and the newest that is known to be published."""
        row = await self._connection.fetchrow(
            f"SELECT c.seq, p.published_seq FROM {self._schema}.commit_counter c, {self._schema}.relay_progress p"  # noqa: S608
        )
        return Counters(issued_seq=row["seq"], published_seq=row["published_seq"])

    async def commit_id(self, seq: int) -> uuid.UUID | None:
        """The id of a commit that is still in the outbox."""
        found: uuid.UUID | None = await self._connection.fetchval(
            f"SELECT commit_id FROM {self._schema}.outbox WHERE seq = $1 LIMIT 1",  # noqa: S608
            seq,
        )
        return found

    async def commits_after(self, seq: int) -> list[StoredCommit]:
        """The next whole commits in order: a bounded batch, but at least one when there is one.

        Raises `OutboxDamaged` when the next one is not whole.
        """
        rows = await self._rows(seq, BATCH_ROWS)
        # One commit may fill a whole batch and go on behind it; then all of it is read, however much that is.
        if rows and len(rows) == BATCH_ROWS and rows[0]["seq"] == rows[-1]["seq"]:
            rows = await self._rows(seq, rows[0]["parts"])
        commits: list[StoredCommit] = []
        size = 0
        for number, group in groupby(rows, key=lambda row: row["seq"]):
            parts = list(group)
            size += sum(len(part["payload"]) for part in parts)
            # The bound never holds back the first one: it would be too large the next time as well.
            if len(parts) != parts[0]["parts"] or (commits and size > BATCH_BYTES):
                break
            commits.append(StoredCommit(number, tuple(map(_message, parts))))
        if rows and not commits:
            # A commit becomes visible as a whole: somebody took a part of it away, and it will never be complete.
            raise OutboxDamaged(f"commit {rows[0]['seq']} is not whole in the outbox")
        return commits

    async def forget_through(self, seq: int) -> None:
        """Remove what is known to be published."""
        # Both or neither: rows gone without the progress noted look like a database that was restored.
        async with self._connection.transaction():
            await self._connection.execute(f"DELETE FROM {self._schema}.outbox WHERE seq <= $1", seq)  # noqa: S608
            await self._connection.execute(
                f"UPDATE {self._schema}.relay_progress SET published_seq = $1",  # noqa: S608
                seq,
            )

    async def _rows(self, seq: int, limit: int) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(
            f"SELECT seq, parts, topic, key, headers, payload FROM {self._schema}.outbox"  # noqa: S608
            " WHERE seq > $1 ORDER BY seq, position LIMIT $2",
            seq,
            limit,
        )
        return rows


def _message(row: Any) -> Message:
    headers = tuple((name, value.encode()) for name, value in json.loads(row["headers"]).items())
    return Message(topic=row["topic"], key=row["key"], value=row["payload"], headers=headers)
