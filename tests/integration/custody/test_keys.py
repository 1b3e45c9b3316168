"""Installation keys on a real database: the first one, the next one, and those that do not fit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.resolver.custody.rewrapping import _rewrapped
from services.resolver.custody.standing import CustodyAway
from shared.config import Misconfigured
from shared.custody import KeysMissing
from shared.custody.directory import key_path, recovery_path
from shared.errors import ChoiceNeeded, Conflict
from tests.integration.custody.conftest import ALICE, House, place
from tests.waiting import until


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


async def test_the_only_key_of_a_new_installation_becomes_its_first(house: House) -> None:
    key = await house.generate()
    async with house.replica() as replica:
        (first,) = (await replica.desk.now()).generations
        assert (first.n, first.key_id, first.state) == (1, key, "current")
        assert first.recovery_key_id == house.recovery.public.key_id
    assert await house.said() == [("made-current", key)]


async def test_replicas_that_start_together_adopt_it_once(house: House) -> None:
    key = await house.generate()
    standings = [house.standing(f"resolver-{number}") for number in range(4)]
    await asyncio.gather(*(standing.start() for standing in standings))
    assert [standing.reason for standing in standings] == [None] * 4
    assert await house.said() == [("made-current", key)]
    for standing in standings:
        await standing.books.engine.dispose()


async def test_without_any_key_a_start_ends_with_what_to_do(house: House) -> None:
    with pytest.raises(Misconfigured, match="keyfob keys generate"):
        await house.standing().start()


async def test_several_keys_and_none_ever_used_is_for_a_person_to_decide(house: House) -> None:
    ids = {await house.generate(), await house.generate()}
    with pytest.raises(Misconfigured, match="leave the one to begin with") as refused:
        await house.standing().start()
    assert all(key_id in str(refused.value) for key_id in ids)


async def test_a_wrong_key_ends_the_start_with_the_right_ones_name_and_changes_nothing(house: House) -> None:
    right = await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(3))
    other = house.directory("other")
    wrong = await house.generate(other)
    rows = await house.sql("SELECT id, wrap FROM local_values ORDER BY id")
    before = content(other)
    with pytest.raises(KeysMissing, match=rf"not given: {right} \(given: {wrong}\)"):
        await house.standing("resolver-2", other).start()
    assert await house.sql("SELECT id, wrap FROM local_values ORDER BY id") == rows
    assert await house.sql("SELECT key_id, state FROM generations") == [(right, "current")]
    assert await house.sql("SELECT replica_id FROM replicas") == [("resolver-1",)]
    assert content(other) == before


async def test_a_wrong_key_is_refused_before_there_is_any_value(house: House) -> None:
    right = await house.generate()
    async with house.replica():
        pass
    other = house.directory("other")
    await house.generate(other)
    with pytest.raises(KeysMissing, match=right):
        await house.standing("resolver-2", other).start()


async def test_an_old_key_alone_is_refused_after_a_rotation(house: House) -> None:
    old = await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(3))
        new = await house.generate()
        await replica.desk.rotate(new, by=ALICE)
        await replica.rotated()
    key_path(house.directory(), new).unlink()
    with pytest.raises(KeysMissing, match=rf"{new} \(given: {old}\)"):
        await house.standing().start()


async def test_a_key_file_that_others_can_read_ends_the_start(house: House) -> None:
    key = await house.generate()
    key_path(house.directory(), key).chmod(0o644)
    with pytest.raises(Misconfigured, match="chmod 600"):
        await house.standing().start()


async def test_while_the_database_is_away_a_start_goes_on_and_says_so(house: House) -> None:
    await house.generate()
    standing = house.standing()
    nowhere = house.settings(house.directory()).model_copy(
        update={"database_url": "postgresql+asyncpg://keyfob@127.0.0.1:1/none"}
    )
    await standing.books.engine.dispose()
    from services.resolver.custody.recovering import books_for  # noqa: PLC0415

    present, standing.books = standing.books, books_for(nowhere)
    await standing.start()
    with pytest.raises(CustodyAway):
        standing.check()
    standing.books = present
    running = asyncio.create_task(standing.run())
    await until(lambda: standing.reason is None, within=10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await present.engine.dispose()


async def test_keys_that_turn_out_wrong_when_the_database_is_back_end_nothing_and_mend_by_themselves(
    house: House,
) -> None:
    right = await house.generate()
    async with house.replica():
        pass
    other = house.directory("other")
    await house.generate(other)
    standing = house.standing("resolver-2", other)
    standing.reason = "the database was away at the start"
    running = asyncio.create_task(standing.run())
    await until(lambda: right in (standing.reason or ""), within=10)
    key_path(other, right).write_bytes(key_path(house.directory(), right).read_bytes())
    key_path(other, right).chmod(0o600)
    await until(lambda: standing.reason is None, within=10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await standing.books.engine.dispose()


class TestRotating:
    async def test_all_values_come_to_the_new_key_and_keep_their_seals(self, house: House) -> None:
        old = await house.generate()
        async with house.replica() as replica:
            await replica.enter(range(25))
            seals = await house.sql("SELECT id, sealed, version FROM local_values ORDER BY id")
            new = await house.generate()
            await replica.desk.rotate(None, by=ALICE)
            await replica.rotated()
            now = await replica.desk.now()
            assert dict(now.values) == {new: 25}
            assert now.rotation is not None
            assert (now.rotation.total, now.rotation.done, now.rotation.damaged) == (25, 25, 0)
            assert all([await replica.opens(number) for number in range(25)])
        assert await house.sql("SELECT id, sealed, version FROM local_values ORDER BY id") == seals
        assert await house.said() == [("made-current", old), ("made-current", new), ("rewrapped", new)]

    async def test_it_begins_only_when_every_replica_has_the_key(self, house: House) -> None:
        one, two = house.directory("one"), house.directory("two")
        await house.generate(one, two)
        async with (
            house.replica("resolver-1", directory=one) as replica,
            house.replica("resolver-2", directory=two),
        ):
            new = await house.generate(one)
            with pytest.raises(Conflict, match="resolver-2"):
                await replica.desk.rotate(new, by=ALICE)
            with pytest.raises(Conflict, match="every replica"):
                await replica.desk.rotate(None, by=ALICE)
            for suffix in (key_path, recovery_path):
                suffix(two, new).write_bytes(suffix(one, new).read_bytes())
                suffix(two, new).chmod(0o600)
            await replica.desk.rotate(new, by=ALICE)
            await replica.rotated()

    async def test_it_commits_only_together_with_the_new_recovery_blob(self, house: House) -> None:
        old = await house.generate()
        async with house.replica() as replica:
            await replica.enter(range(3))
            new = await house.generate(recovery=False)
            with pytest.raises(Conflict, match="--recovery"):
                await replica.desk.rotate(new, by=ALICE)
            assert await house.sql("SELECT key_id FROM generations") == [(old,)]
        assert await house.said() == [("made-current", old)]

    async def test_a_blob_of_another_key_is_not_taken_for_the_new_ones(self, house: House) -> None:
        old = await house.generate()
        async with house.replica() as replica:
            new = await house.generate()
            keys = house.directory()
            recovery_path(keys, new).write_bytes(recovery_path(keys, old).read_bytes())
            with pytest.raises(Conflict, match="does not hold the recovery blob"):
                await replica.desk.rotate(new, by=ALICE)

    async def test_no_key_becomes_current_twice(self, house: House) -> None:
        old = await house.generate()
        async with house.replica() as replica:
            await replica.desk.rotate(await house.generate(), by=ALICE)
            await replica.rotated()
            with pytest.raises(Conflict, match="no key becomes it twice"):
                await replica.desk.rotate(old, by=ALICE)

    async def test_of_several_new_keys_one_must_be_named(self, house: House) -> None:
        await house.generate()
        async with house.replica() as replica:
            new = {await house.generate(), await house.generate()}
            with pytest.raises(ChoiceNeeded) as choice:
                await replica.desk.rotate(None, by=ALICE)
            assert set(choice.value.choices) == new

    async def test_one_at_a_time(self, house: House) -> None:
        await house.generate()
        async with house.replica(rewraps=False) as replica:
            await replica.enter(range(3))
            await replica.desk.rotate(await house.generate(), by=ALICE)
            with pytest.raises(Conflict, match="under way"):
                await replica.desk.rotate(await house.generate(), by=ALICE)

    async def test_what_is_entered_meanwhile_is_under_the_new_key(self, house: House) -> None:
        await house.generate()
        async with house.replica(rewraps=False) as replica, house.replica("resolver-2") as other:
            await replica.enter(range(3))
            new = await house.generate()
            await replica.desk.rotate(new, by=ALICE)
            # This one was never told: it asks the database.
            await other.enter(range(3, 6))
            await replica.rotated()
            now = await replica.desk.now()
            assert dict(now.values) == {new: 6}
            assert now.rotation is not None
            assert now.rotation.done == 3

    async def test_a_damaged_row_stops_nobody_and_keeps_its_key(self, house: House) -> None:
        old = await house.generate()
        async with house.replica(batch=2) as replica:
            await replica.enter(range(7))
            await house.sql(
                "UPDATE local_values SET wrap = set_byte(wrap, 60, get_byte(wrap, 60) # 1) WHERE id = :id",
                id=place(3).id,
            )
            new = await house.generate()
            await replica.desk.rotate(None, by=ALICE)
            await replica.rotated()
            now = await replica.desk.now()
            assert dict(now.values) == {old: 1, new: 6}
            assert now.rotation is not None
            assert (now.rotation.done, now.rotation.damaged) == (6, 1)
            with pytest.raises(Conflict, match="1 values still need"):
                await replica.desk.retire(old, by=ALICE)
            await replica.enter(range(3, 4))
            await replica.desk.retire(old, by=ALICE)

    async def test_a_value_that_is_replaced_under_a_batch_keeps_its_new_wrap(self, house: House) -> None:
        old = await house.generate()
        async with house.replica(rewraps=False) as replica:
            await replica.enter(range(2))
            new = await house.generate()
            await replica.desk.rotate(new, by=ALICE)
            books, ring = replica.standing.books, await replica.standing.ring()
            async with books.open() as store:
                rows = await store.not_under(new, after="", most=10)
            await replica.enter(range(1))
            changed = [one for row in rows if (one := _rewrapped(row, ring)) is not None]
            async with books.open() as store:
                assert await store.put_wraps(new, changed) == 1
            assert all([await replica.opens(number) for number in range(2)])
            assert old not in (await replica.desk.now()).values

    async def test_two_who_rewrap_at_the_same_time_write_each_row_once(self, house: House) -> None:
        await house.generate()
        async with house.replica(rewraps=False) as replica, house.replica("resolver-2", rewraps=False) as other:
            await replica.enter(range(40))
            new = await house.generate()
            await replica.desk.rotate(new, by=ALICE)
            rotation = (await replica.desk.now()).rotation
            assert rotation is not None
            # As if one of them had lost its lock and did not know.
            for one in (replica, other):
                one.rewrapper.batch = 3
            await asyncio.gather(*(one.rewrapper.finish(rotation) for one in (replica, other)))
            now = await replica.desk.now()
            assert dict(now.values) == {new: 40}
            assert now.rotation is not None
            assert now.rotation.done == 40
        assert [action for action, _ in await house.said()].count("rewrapped") == 1


class TestRetiring:
    async def test_a_key_that_nothing_needs_is_not_asked_for_any_more(self, house: House) -> None:
        old = await house.generate()
        async with house.replica() as replica:
            await replica.enter(range(3))
            new = await house.generate()
            with pytest.raises(Conflict, match="the current one"):
                await replica.desk.retire(old, by=ALICE)
            await replica.desk.rotate(new, by=ALICE)
            await replica.rotated()
            now = await replica.desk.retire(old, by=ALICE)
            assert [(one.key_id, one.state) for one in now.generations] == [(old, "retired"), (new, "current")]
            with pytest.raises(Conflict, match="retired already"):
                await replica.desk.retire(old, by=ALICE)
            with pytest.raises(Conflict, match="ever current"):
                await replica.desk.retire("a" * 16, by=ALICE)
        key_path(house.directory(), old).unlink()
        async with house.replica() as replica:
            assert await replica.opens(1)
        assert (await house.said())[-1] == ("retired", old)

    async def test_not_while_a_rotation_is_under_way(self, house: House) -> None:
        old = await house.generate()
        async with house.replica(rewraps=False) as replica:
            await replica.enter(range(3))
            await replica.desk.rotate(await house.generate(), by=ALICE)
            with pytest.raises(Conflict, match="under way"):
                await replica.desk.retire(old, by=ALICE)
