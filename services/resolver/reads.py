"""Reading values for resolves. Identical reads under way are shared, nothing is kept afterwards.

A read may be joined only by a resolve that knows nothing which the read didn't: it must have begun on a picture at
least as new as the one that the resolve was decided on. Otherwise a read that began before a rotation would answer
somebody who was already told of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.resolver.domain.plans import StoredValue
from services.resolver.domain.snapshot import Floor
from services.resolver.sources.port import AnswerUnusable, ReadFailed, ReadValue, SourceUnreachable, ValueReader
from shared.crypto.secret import SecretBytes

Place = tuple[str, str, str, str, str | None]
"""(source id, origin, mount, path, key)"""


@dataclass(slots=True, eq=False)
class _Flight:
    """One read under way, and those who joined it."""

    began: Floor
    joined: list[asyncio.Future[ReadValue]] = field(default_factory=list)

    def land(self, read: ReadValue) -> None:
        """Give everybody who joined a copy of their own, which they wipe when they like."""
        for waiter in self.joined:
            # Whoever joined may have been cancelled meanwhile.
            if not waiter.done():
                # A copy each: whoever is done first wipes its own, and nobody else's.
                with read.secret.reveal() as view:
                    waiter.set_result(ReadValue(SecretBytes(view), read.version))

    def fail(self, error: ReadFailed) -> None:
        """Everybody who joined fails alike."""
        for waiter in self.joined:
            if not waiter.done():
                waiter.set_exception(error)


@dataclass(frozen=True, slots=True)
class Reads:
    """Values by provider. How long a read may take is bounded by its reader."""

    readers: Mapping[str, ValueReader]
    _flights: dict[Place, _Flight] = field(default_factory=dict)

    async def read(self, stored: StoredValue, *, since: Floor) -> ReadValue:
        """The value, read after `since` was known. Raises a `ReadFailed`; the caller wipes the value."""
        place = _place(stored)
        flight = self._flights.get(place)
        # A read that is too old is not waited for either: a new one takes its place for those who come.
        if flight is not None and flight.began.covers(since):
            waiter: asyncio.Future[ReadValue] = asyncio.get_running_loop().create_future()
            flight.joined.append(waiter)
            return await waiter
        flight = self._flights[place] = _Flight(since)
        try:
            read = await self._read(stored)
        except ReadFailed as error:
            flight.fail(error)
            raise
        # The one who reads was cancelled: those who joined must not wait for an answer that never comes.
        except BaseException:
            flight.fail(SourceUnreachable())
            raise
        finally:
            # A newer read may have taken the place meanwhile: that one stays.
            if self._flights.get(place) is flight:
                del self._flights[place]
        flight.land(read)
        return read

    async def _read(self, stored: StoredValue) -> ReadValue:
        reader = self.readers.get(stored.source.place.provider)
        if reader is None:
            raise AnswerUnusable
        return await reader.read(stored.source, stored.reference)


def _place(stored: StoredValue) -> Place:
    place = stored.source.place
    return stored.source.id, place.origin, place.mount, stored.reference.path, stored.reference.key
