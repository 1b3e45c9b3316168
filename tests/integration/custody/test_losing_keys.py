"""Losing the key of an installation: what the product says is lost, what is not, and how it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.resolver.custody.recover_command import told
from services.resolver.custody.recovering import AlreadyThere, Lost, Recovery, Restored, restore
from shared.config import Misconfigured
from shared.custody import Kek, RecoveryKey, seal_for_recovery
from shared.custody.directory import key_files, key_path
from shared.custody.providers.file import FileProvider
from shared.errors import Unavailable
from tests.integration.custody.conftest import ALICE, House


async def recovered(
    house: House, directory: Path, key: RecoveryKey | None = None, *, retired: bool = False
) -> list[Recovery]:
    return await restore(
        house.books, key or house.recovery, directory=directory, provider=FileProvider(), retired=retired
    )


@pytest.mark.parametrize("rotations", [0, 1, 2])
async def test_a_lost_key_comes_back_on_an_empty_machine(house: House, rotations: int, tmp_path: Path) -> None:
    ids = [await house.generate()]
    async with house.replica() as replica:
        await replica.enter(range(5))
        for _ in range(rotations):
            ids.append(await house.generate())
            await replica.desk.rotate(ids[-1], by=ALICE)
            await replica.rotated()
    lost = {path.name: path.read_bytes() for path in key_files(house.directory())}
    for path in house.directory().iterdir():
        path.unlink()
    with pytest.raises(Misconfigured, match="keyfob keys recover"):
        await house.standing().start()
    empty = house.directory("empty-machine")
    outcomes = await recovered(house, empty)
    assert [(one.key_id, one.values) for one in outcomes if isinstance(one, Restored)] == [
        (key_id, 5 if key_id == ids[-1] else 0) for key_id in reversed(ids)
    ]
    assert {path.name: path.read_bytes() for path in key_files(empty)} == lost
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in key_files(empty))
    async with house.replica(directory=empty) as replica:
        assert all([await replica.opens(number) for number in range(5)])
    assert [action for action, _ in await house.said()].count("recovered") == rotations + 1


async def test_without_a_recovery_blob_it_says_what_is_lost_and_what_is_not(house: House) -> None:
    key = await house.generate(recovery=False)
    async with house.replica() as replica:
        await replica.enter(range(4))
    outcomes = await recovered(house, house.directory("empty-machine"))
    assert outcomes == [Lost(key, 4, "it was made without --recovery")]
    said = " ".join(told(outcomes))
    assert f"LOST: {key}, and 4 values" in said
    assert "References need no key" in said
    assert key_files(house.directory("empty-machine")) == []


async def test_another_recovery_key_restores_nothing(house: House) -> None:
    await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(2))
    empty = house.directory("empty-machine")
    (outcome,) = await recovered(house, empty, RecoveryKey.generate())
    assert isinstance(outcome, Lost)
    assert house.recovery.public.key_id in outcome.why
    assert key_files(empty) == []


async def test_a_blob_that_somebody_put_into_the_database_restores_no_key_of_his(house: House) -> None:
    right = await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(2))
    theirs = Kek.generate()
    blob = seal_for_recovery(theirs, house.recovery.public)
    await house.sql("UPDATE generations SET recovery = :blob", blob=blob)
    empty = house.directory("empty-machine")
    (outcome,) = await recovered(house, empty)
    assert outcome == Lost(right, 2, "its recovery blob holds another key: the database was changed")
    # Even when he names his key everywhere: the rows do not open with it.
    await house.sql("UPDATE generations SET key_id = :theirs", theirs=theirs.key_id)
    await house.sql("UPDATE local_values SET kek_id = :theirs", theirs=theirs.key_id)
    (outcome,) = await recovered(house, empty)
    assert isinstance(outcome, Lost)
    assert key_files(empty) == []


async def test_what_lies_there_is_never_written_over(house: House) -> None:
    key = await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(2))
    before = key_path(house.directory(), key).read_bytes()
    assert await recovered(house, house.directory()) == [AlreadyThere(key, key_path(house.directory(), key), 2)]
    assert key_path(house.directory(), key).read_bytes() == before
    empty = house.directory("empty-machine")
    key_path(empty, key).write_text("something else\n")
    key_path(empty, key).chmod(0o600)
    (outcome,) = await recovered(house, empty)
    assert isinstance(outcome, Lost)
    assert key_path(empty, key).read_text() == "something else\n"


async def test_a_retired_key_comes_back_only_on_request(house: House) -> None:
    old = await house.generate()
    async with house.replica() as replica:
        new = await house.generate()
        await replica.desk.rotate(new, by=ALICE)
        await replica.rotated()
        await replica.desk.retire(old, by=ALICE)
    assert [one.key_id for one in await recovered(house, house.directory("one"))] == [new]
    assert [one.key_id for one in await recovered(house, house.directory("two"), retired=True)] == [new, old]


async def test_an_empty_database_has_nothing_to_restore(house: House) -> None:
    await house.generate()
    async with house.replica():
        pass
    await house.sql("DELETE FROM generations")
    assert told(await recovered(house, house.directory("empty-machine"))) == [
        "The database knows no installation key: there is nothing to restore."
    ]


async def test_no_key_comes_back_without_a_word_in_the_record(house: House) -> None:
    key = await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(2))
    empty = house.directory("empty-machine")
    await house.sql("ALTER TABLE outbox RENAME TO away")
    with pytest.raises(Unavailable):
        await recovered(house, empty)
    assert key_files(empty) == []
    await house.sql("ALTER TABLE away RENAME TO outbox")
    assert await recovered(house, empty) == [Restored(key, key_path(empty, key), 2)]
    assert (await house.said())[-1] == ("recovered", key)
