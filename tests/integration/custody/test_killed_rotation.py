"""A rotation is killed at twenty points while values are opened: all open, none fails, none is rewrapped twice."""

from __future__ import annotations

import asyncio
import random
import signal
from multiprocessing.process import BaseProcess

import pytest

from shared.custody.key_text import is_key_id
from tests.integration.custody.conftest import ALICE, House, Replica
from tests.integration.custody.rewrap_process import rewrapper
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)

KILLS = 20
VALUES = 10_000
# Small, so that a kill comes soon after the point that was chosen for it, also on a machine with other work.
BATCH = 20
REWRAPPER = "resolver-killed"

# Every change of a wrap, as the database saw it commit: what the product says of itself proves nothing.
WITNESS = """
CREATE TABLE rewraps (id text, old text, new text);
CREATE FUNCTION note_rewrap() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO rewraps VALUES (NEW.id, OLD.kek_id, NEW.kek_id); RETURN NEW; END $$;
CREATE TRIGGER witness AFTER UPDATE OF wrap ON local_values FOR EACH ROW
  WHEN (OLD.wrap IS DISTINCT FROM NEW.wrap) EXECUTE FUNCTION note_rewrap();
"""


async def done(house: House) -> int:
    ((count,),) = await house.sql("SELECT done FROM rotations ORDER BY n DESC LIMIT 1")
    return int(count)


async def keep_opening(replica: Replica, opened: list[bool]) -> None:
    chosen = random.Random(7)  # noqa: S311 - repeatable, on purpose
    while True:
        opened.append(await replica.opens(chosen.randrange(VALUES)))


async def test_killed_at_twenty_points_while_values_are_opened(house: House) -> None:
    old = await house.generate()
    chosen = random.Random(11)  # noqa: S311 - repeatable, on purpose
    async with house.replica(rewraps=False) as replica:
        await replica.fill(VALUES)
        for statement in WITNESS.strip().split(";\n"):
            await house.sql(statement)
        opened: list[bool] = []
        reader = asyncio.create_task(keep_opening(replica, opened))
        new = await house.generate()
        await replica.desk.rotate(new, by=ALICE)
        for kills_left in range(KILLS, 0, -1):
            done_before = await done(house)
            point = done_before + chosen.randint(1, max(1, (VALUES - done_before) // (kills_left + 1)))
            opened_before = len(opened)
            process = await started(house)
            await until(lambda: _reached(house, point), within=30, every=0.001)  # noqa: B023 - awaited here
            process.kill()
            assert await _ended(process) == -signal.SIGKILL
            assert await done(house) < VALUES, "killed in the middle of its work"
            await until(lambda: len(opened) > opened_before, within=30)  # noqa: B023 - awaited here
        last = await started(house)
        await replica.rotated()
        last.kill()
        await _ended(last)
        reader.cancel()
        (ended,) = await asyncio.gather(reader, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), "no value failed to open"
        assert await replica.all_open(VALUES)
        now = await replica.desk.now()
    assert len(opened) >= KILLS
    assert all(opened)
    assert dict(now.values) == {new: VALUES}
    assert now.rotation is not None
    assert (now.rotation.done, now.rotation.damaged) == (VALUES, 0)
    assert await house.sql("SELECT old, new, count(*), count(DISTINCT id) FROM rewraps GROUP BY 1, 2") == [
        (old, new, VALUES, VALUES)
    ]
    assert is_key_id(new)
    assert await house.said() == [("made-current", old), ("made-current", new), ("rewrapped", new)]


async def started(house: House) -> BaseProcess:
    # In a thread: the first of them waits until all has been imported, and the reader has deadlines.
    return await asyncio.to_thread(rewrapper, house, REWRAPPER, batch=BATCH)


async def _reached(house: House, point: int) -> bool:
    return await done(house) >= point


async def _ended(process: BaseProcess) -> int | None:
    await until(lambda: not process.is_alive(), within=10)
    return process.exitcode
