"""Connecting and disconnecting sources: looked at before they are kept, kept before anybody relies on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.sync.domain.naming import check_source_name, is_path
from services.sync.domain.observations import Unreached
from services.sync.domain.ports import Connected, Receipt, Register, Views
from services.sync.handlers.keepers import Keepers
from services.sync.sources.port import ReaderFactory, Unsuitable
from shared.config import Mode
from shared.egress import Origin
from shared.errors import BadRequest, NotAvailable, SourceUnavailable
from shared.events.catalog import KvSource


@dataclass(frozen=True, slots=True)
class Connections:
    """What administrators do to sources."""

    register: Register
    views: Views
    keepers: Keepers
    readers: Mapping[str, ReaderFactory]
    mode: Mode

    async def connect(self, name: str, *, provider: str, origin: str, mount: str, prefix: str) -> Connected:
        """Keep a source, if it can be worked with.

        `BadRequest` for a place that can't be one, `SourceUnavailable` if it does not answer us, `Conflict` if the
        name is another's.
        """
        check_source_name(name)
        place = self._place(provider=provider, origin=origin, mount=mount, prefix=prefix)
        # Outside any transaction: a vault that hangs must hold no lock of ours.
        match await self.readers[place.provider](name, place).check():
            case Unsuitable(why):
                raise BadRequest(f"This can't be a source: {why}")
            case Unreached(why):
                raise SourceUnavailable(f"The source can't be worked with: {why}")
        connected = await self.register.connect(name, place)
        # This replica at once; others look every second by themselves.
        self.keepers.refresh()
        return connected

    def _place(self, *, provider: str, origin: str, mount: str, prefix: str) -> KvSource:
        mount, prefix = mount.strip("/"), prefix.strip("/")
        if provider not in self.readers:
            raise BadRequest("There is no such provider.")
        if not is_path(mount) or (prefix and not is_path(prefix)):
            raise BadRequest("Mount and prefix are paths without control characters, `.` and `..`.")
        return KvSource(origin=str(Origin.parse(origin, mode=self.mode)), mount=mount, prefix=prefix)

    async def disconnect(self, source_id: str) -> Receipt:
        """Forget a source, and its references with it; `NotAvailable` for an unknown one."""
        receipt = await self.register.disconnect(source_id)
        if receipt is None:
            raise NotAvailable
        self.keepers.refresh()
        return receipt

    async def names(self, source: str | None) -> tuple[str, ...]:
        """The names of the sources that a sync is for: one by name or id, or all."""
        if source is None:
            return tuple(record.name for record in await self.views.sources(after="", limit=10_000))
        record = await self.views.source(source)
        if record is None:
            raise NotAvailable
        return (record.name,)
