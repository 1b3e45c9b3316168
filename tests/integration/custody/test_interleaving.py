"""Acts on keys that come between two steps of another."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from services.resolver.custody.key_routes import view
from services.resolver.custody.store import CustodyStore
from services.resolver.custody.transactions import Books
from tests.integration.custody.conftest import ALICE, House, Replica


async def rotate(replica: Replica, key: str) -> None:
    """Begin one, without the waiting for others that comes before it."""
    await replica.standing.announce()
    async with replica.standing.books.commit() as work:
        await replica.desk._make_current(work, key, ALICE)


async def test_keys_are_shown_as_of_one_moment_while_a_rotation_begins(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await house.generate()
    async with house.replica(rewraps=False) as replica:
        await replica.enter(range(2))
        new = await house.generate()
        counted = CustodyStore.values_by_key

        async def rotating(store: CustodyStore) -> dict[str, int]:
            monkeypatch.undo()
            await rotate(replica, new)
            await replica.enter(range(2, 3))
            return await counted(store)

        monkeypatch.setattr(CustodyStore, "values_by_key", rotating)
        shown = view(await replica.desk.now())
        assert [(one.key_id, one.values) for one in shown.keys] == [(old, 2)]
        assert shown.rotation is None
        assert shown.missing == []


async def test_a_rotation_that_began_while_another_one_was_waited_for_counts_its_own_values(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.generate()
    async with house.replica(rewraps=False) as replica:
        await replica.enter(range(5))
        await rotate(replica, await house.generate())
        newest = await house.generate()
        locked = Books.rewrapping

        @contextlib.asynccontextmanager
        async def late(books: Books) -> AsyncIterator[bool]:
            monkeypatch.undo()
            # As if another replica had the lock until now.
            await replica.rewrapper._look()
            await rotate(replica, newest)
            async with locked(books) as mine:
                yield mine

        monkeypatch.setattr(Books, "rewrapping", late)
        await replica.rewrapper._look()
        await replica.rewrapper._look()
        now = await replica.desk.now()
        assert dict(now.values) == {newest: 5}
        assert now.rotation is not None
        assert (now.rotation.total, now.rotation.done) == (5, 5)
        assert now.rotation.finished_at is not None
