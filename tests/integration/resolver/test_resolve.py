"""A whole resolve on the real broker and the real secret manager."""

from __future__ import annotations

from tests.fakes.gateway import values
from tests.integration.resolver.conftest import World, secret_of


async def test_each_hospital_gets_its_own_value(world: World) -> None:
    for hospital in ("hospital-a", "hospital-b"):
        answer = await world.gateway.resolve(world.token(hospital))
        assert values(answer) == {"DB_URL": secret_of(hospital).encode()}
        assert answer.context.name == hospital
