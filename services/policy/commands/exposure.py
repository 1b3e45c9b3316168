"""Who could: gathers what stands around a reference, and lets the domain say what that opens."""

from __future__ import annotations

from typing import Final

from services.policy.domain.exposures import Standing, Way, ways
from services.policy.domain.ports import Reading
from shared.events.policy import BindingRecord, GrantRecord, InstanceRecord, MappingRecord, ServerRecord

_AT_ONCE: Final = 500


async def exposed(reading: Reading, reference_id: str) -> tuple[Way, ...]:
    """Every way to a reference, as of the reading's moment."""
    grants = await reading.linked(GrantRecord, reference_id)
    mappings: list[MappingRecord] = []
    bindings: list[BindingRecord] = []
    for profile_id in sorted({grant.profile_id for grant in grants}):
        mappings += await reading.linked(MappingRecord, profile_id)
        bindings += await reading.linked(BindingRecord, profile_id)
    servers: dict[str, ServerRecord] = {}
    for server_id in {binding.server_id for binding in bindings}:
        server = await reading.get(ServerRecord, server_id)
        if server is not None:
            servers[server_id] = server
    return ways(
        Standing(
            grants=grants,
            mappings=tuple(mappings),
            bindings=tuple(bindings),
            servers=servers,
            # Thousands of instances are read only where they can matter.
            instances=await _instances(reading) if grants else (),
            now=reading.now,
        )
    )


async def _instances(reading: Reading) -> tuple[InstanceRecord, ...]:
    found: list[InstanceRecord] = []
    after: str | None = None
    while True:
        page = await reading.page(InstanceRecord, links=(), after=after, limit=_AT_ONCE)
        found += page.items
        after = page.next
        if after is None:
            return tuple(found)
