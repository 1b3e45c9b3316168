"""What the relay reads from the outbox: whole commits in order, in bounded batches, and never a part of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.outbox import store as store_module
from shared.outbox.store import OutboxDamaged, OutboxStore, StoredCommit

SCHEMA = "tests"


@dataclass(slots=True)
class Connection:
    """The outbox table, as its two SELECTs see it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def commit(self, seq: int, parts: int = 1, *, size: int = 1, lost: int | None = None) -> None:
        """Rows of one commit; `lost` is the position of one that somebody removed."""
        for position in range(parts):
            if position != lost:
                row = {"seq": seq, "parts": parts, "topic": "t", "key": f"k{position}", "payload": b"x" * size}
                self.rows.append(row | {"headers": json.dumps({"ce_commitseq": str(seq)})})

    async def fetch(self, statement: str, seq: int, limit: int) -> list[dict[str, Any]]:
        assert "ORDER BY seq, position" in statement
        self.asked.append(limit)
        return [row for row in self.rows if row["seq"] > seq][:limit]


def after(connection: Connection, seq: int = 0) -> list[StoredCommit]:
    return asyncio.run(OutboxStore(connection, SCHEMA).commits_after(seq))


def seqs(commits: list[StoredCommit]) -> list[int]:
    return [commit.seq for commit in commits]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(store_module, "BATCH_ROWS", 5)
    monkeypatch.setattr(store_module, "BATCH_BYTES", 100)
    return Connection()


def test_an_empty_outbox_has_nothing(connection: Connection) -> None:
    assert after(connection) == []


def test_messages_come_as_they_were_said(connection: Connection) -> None:
    connection.commit(7, 2)
    (commit,) = after(connection)
    assert [message.key for message in commit.messages] == ["k0", "k1"]
    assert commit.messages[0].headers == (("ce_commitseq", b"7"),)


def test_only_what_comes_behind_is_read(connection: Connection) -> None:
    for seq in range(1, 4):
        connection.commit(seq)
    assert seqs(after(connection, 2)) == [3]


def test_a_commit_at_the_edge_of_a_batch_waits_for_the_next_one(connection: Connection) -> None:
    connection.commit(1, 3)
    connection.commit(2, 3)
    assert seqs(after(connection)) == [1]
    assert seqs(after(connection, 1)) == [2]


def test_a_commit_larger_than_a_batch_comes_whole(connection: Connection) -> None:
    connection.commit(1, 12)
    connection.commit(2)
    (commit,) = after(connection)
    assert len(commit.messages) == 12
    assert connection.asked == [5, 12]


def test_a_batch_is_bounded_in_bytes_but_holds_at_least_one_commit(connection: Connection) -> None:
    connection.commit(1, size=250)
    connection.commit(2, size=60)
    connection.commit(3, size=60)
    assert seqs(after(connection)) == [1]
    assert seqs(after(connection, 1)) == [2]


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("behind", [0, 1])
def test_a_commit_of_which_a_message_is_gone_is_not_waited_for_in_silence(
    connection: Connection, lost: int, behind: int
) -> None:
    """Nobody but somebody with access to the database can do that: a revocation would never be published."""
    connection.commit(1, 3, lost=lost)
    for seq in range(2, 2 + behind):
        connection.commit(seq)
    with pytest.raises(OutboxDamaged, match="commit 1 "):
        after(connection)


def test_whole_commits_before_a_damaged_one_are_still_published(connection: Connection) -> None:
    connection.commit(1)
    connection.commit(2, 3, lost=2)
    assert seqs(after(connection)) == [1]
    with pytest.raises(OutboxDamaged, match="commit 2 "):
        after(connection, 1)


def test_a_large_commit_of_which_a_message_is_gone_is_found_as_well(connection: Connection) -> None:
    connection.commit(1, 9, lost=8)
    connection.commit(2, 3)
    with pytest.raises(OutboxDamaged, match="commit 1 "):
        after(connection)


def test_what_is_published_is_forgotten_and_noted_in_one_transaction() -> None:
    """One without the other would look like a database that was restored, and stop the relay."""
    steps: list[str] = []

    class Recording:
        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[None]:
            steps.append("begin")
            yield
            steps.append("commit")

        async def execute(self, statement: str, seq: int) -> None:
            steps.append(f"{statement.split(maxsplit=1)[0]} {seq}")

    asyncio.run(OutboxStore(Recording(), SCHEMA).forget_through(7))
    assert steps == ["begin", "DELETE 7", "UPDATE 7", "commit"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 60)), max_size=12))
def test_batch_by_batch_everything_comes_once_whole_and_in_order(said: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "BATCH_ROWS", 5)
        patch.setattr(store_module, "BATCH_BYTES", 100)
        connection = Connection()
        for seq, (parts, size) in enumerate(said, 1):
            connection.commit(seq, parts, size=size)
        read: list[StoredCommit] = []
        while batch := after(connection, read[-1].seq if read else 0):
            assert len(batch) == 1 or sum(len(m.value) for commit in batch for m in commit.messages) <= 100
            read += batch
    assert [(commit.seq, len(commit.messages)) for commit in read] == [
        (seq, parts) for seq, (parts, _) in enumerate(said, 1)
    ]
