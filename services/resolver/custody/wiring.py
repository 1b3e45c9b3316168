"""Custody of one replica, put together: keys, database, rotations and the relay of what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from services.resolver.custody.keys import KeyDesk
from services.resolver.custody.reader import KeptReader
from services.resolver.custody.recovering import books_for
from services.resolver.custody.rewrapping import Rewrapper
from services.resolver.custody.shelf import KeyShelf
from services.resolver.custody.standing import SCHEMA, Standing
from services.resolver.custody.values import LocalValues
from services.resolver.settings import ResolverSettings
from shared import topics
from shared.bus.connection import KafkaSettings
from shared.config import Misconfigured, Mode
from shared.custody.providers import provider_for
from shared.egress import Egress
from shared.errors import BadRequest
from shared.outbox.relay import Relay
from shared.serving import Background

LOG_KEY: Final = "custody"
"""Only tells the relay that its topic is a log, which keeps nothing for ever: it has one partition for all keys."""


@dataclass(frozen=True, slots=True)
class Custody:
    """Everything about local values of one replica; `opened` around the life of a replica, `begin` in it."""

    standing: Standing
    rewrapper: Rewrapper
    relay: Relay
    desk: KeyDesk
    values: LocalValues
    reader: KeptReader

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Look at keys and database, and let go of the database at the end. `Misconfigured` for keys that don't fit."""
        try:
            await self.standing.start()
            yield
            # The background has stopped by now: uses that it had not written yet are written here.
            await self.reader.flush()
        finally:
            await self.standing.books.engine.dispose()

    def begin(self, background: Background) -> None:
        """Keep everything going until the background stops."""
        background.start("custody", self.standing.run)
        background.start("rotation", self.rewrapper.run)
        background.start("uses of local values", self.reader.run)
        background.start("custody relay", self._publish)

    async def _publish(self) -> None:
        # Its tables must be there first.
        await self.standing.ready.wait()
        await self.relay.run()


def custody_of(own: ResolverSettings, egress: Egress, kafka: KafkaSettings, *, mode: Mode) -> Custody | None:
    """None where nothing is kept; `Misconfigured` for settings that can't work. Nothing is connected yet."""
    if own.keys_dir is None:
        return None
    try:
        provider = provider_for(own.provider(service="resolver", mode=mode), egress)
    except BadRequest as problem:
        raise Misconfigured(f"KEYFOB_RESOLVER_KEY_ORIGIN: {problem.detail}") from None
    standing = Standing(own.replica_id, KeyShelf(own.keys_dir, provider), books_for(own))
    rewrapper = Rewrapper(standing, batch=own.rewrap_batch)
    relay = Relay(
        database=own.database(), schema=SCHEMA, kafka=kafka, state_topic=topics.CUSTODY_CHANGES, log_key=LOG_KEY
    )
    values = LocalValues(standing)
    return Custody(standing, rewrapper, relay, KeyDesk(standing, rewrapper), values, KeptReader(values))
