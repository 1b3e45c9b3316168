"""When a value was used last: said of the value that was released, and of no other."""

from __future__ import annotations

from services.resolver.custody.reader import KeptReader
from tests.integration.custody.conftest import House, place


async def release(reader: KeptReader, number: int) -> None:
    found = await reader.read(place(number))
    found.secret.wipe()
    reader.used(place(number), found.version)


async def used(house: House) -> dict[str, bool]:
    rows = await house.sql("SELECT field, last_used_at IS NOT NULL FROM local_values")
    return dict(tuple(row) for row in rows)


async def test_a_use_that_is_written_late_is_not_said_of_the_value_that_came_since(house: House) -> None:
    await house.generate()
    async with house.replica() as replica:
        await replica.enter(range(2))
        reader = KeptReader(replica.values)
        await release(reader, 0)
        await release(reader, 1)
        await replica.enter(range(1))
        await reader.flush()
        assert await used(house) == {"FIELD_0": False, "FIELD_1": True}
        await release(reader, 0)
        await reader.flush()
        assert await used(house) == {"FIELD_0": True, "FIELD_1": True}
