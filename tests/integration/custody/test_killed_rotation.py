"""A rotation is killed at twenty points while values are opened: all open, none fails, none is rewrapped twice."""

from __future__ import annotations

import asyncio
import os
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
VALUES = int(os.environ.get("KEYFOB_ROTATION_VALUES", "600"))
"""10,000 for the long ordeal."""
BATCH = max(1, VALUES // 100)
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
        await replica.enter(range(VALUES))
        for statement in WITNESS.strip().split(";\n"):
            await house.sql(statement)
        opened: list[bool] = []
        reader = asyncio.create_task(keep_opening(replica, opened))
        new = await house.generate()
        await replica.desk.rotate(new, by=ALICE)
        points = sorted(chosen.sample(range(1, VALUES - VALUES // 50), KILLS))
        killed = 0
        for point in points:
            if await done(house) >= point:
                # The one before got this far before its signal reached it.
                continue
            before = len(opened)
            process = await started(house)
            await until(lambda: _reached(house, point), within=30, every=0.001)  # noqa: B023 - awaited here
            process.kill()
            assert await _ended(process) == -signal.SIGKILL
            await until(lambda: len(opened) > before, within=30)  # noqa: B023 - awaited here
            killed += 1
        last = await started(house)
        await replica.rotated()
        last.kill()
        await _ended(last)
        reader.cancel()
        (ended,) = await asyncio.gather(reader, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), "no value failed to open"
        assert all([await replica.opens(number) for number in range(VALUES)])
        now = await replica.desk.now()
    assert killed >= KILLS // 2
    assert len(opened) >= killed
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
