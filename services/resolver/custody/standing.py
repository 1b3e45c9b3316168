"""What this replica can do about local values now: nothing, not yet, or all of it.

At a start the keys and the database are looked at once, before anything is answered: a key that is wrong, missing or
old ends the start with a sentence that names the right one, and nothing was written. What is away then is waited for
in the background, while references resolve as if there were no local values. If the keys turn out not to fit only when
the database comes back, this replica goes on without local values and says so, until the right file lies there:
ending then would take references away for the sake of values that can't be had anyway.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from services.resolver.custody.facts import recovery_id_of
from services.resolver.custody.shelf import KeyShelf
from services.resolver.custody.transactions import Books, change_id
from shared.bus.outages import is_outage
from shared.config import Misconfigured
from shared.crypto.key_files import KeyFileRefused
from shared.custody import Keyring
from shared.database import migrate
from shared.errors import Unavailable, cut
from shared.events.changes import Actor
from shared.events.custody import KeyAction, KeyChange

_log = structlog.get_logger(__name__)

SCHEMA: Final = "keyfob_resolver"
SOURCE: Final = "keyfob/resolver"
MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
START_WITHIN_S: Final = 10.0
"""For one look at keys and database: so long a start waits before it goes on without local values."""
RETRY_S: Final = 1.0
HEARTBEAT_S: Final = 1.0
"""Between looks at the directory, each of which is told to the other replicas."""
HEARD_WITHIN_S: Final = 15.0
"""A replica that was silent for longer need not have a new key: before it opens or seals anything it looks itself."""


class CustodyAway(Unavailable):
    """Raised when local values can't be had now, on this replica; references can."""

    kind = "custody-unavailable"
    title = "Local values can't be reached now"


@dataclass(slots=True)
class Standing:
    """The keys and the database of one replica. `start` once, then `run`."""

    replica_id: str
    shelf: KeyShelf
    books: Books
    reason: str | None = "starting"
    """Why local values can't be had now, for people; None when they can."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Look at everything once. `Misconfigured` for keys that don't fit; what is away is left to `run`."""
        try:
            await self._prepare()
        except KeyFileRefused as problem:
            raise Misconfigured(problem.detail) from None
        except Exception as problem:
            if not _is_away(problem):
                raise
            self.reason = cut(problem)
            _log.warning("local-values-wait", reason=self.reason)

    async def run(self) -> None:
        """Become ready, then find new keys and tell the other replicas; until cancelled."""
        while not self.ready.is_set():
            await asyncio.sleep(RETRY_S)
            await self._try_again()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self.announce()
            except Unavailable as problem:
                _log.warning("keys-not-announced", reason=problem.detail)

    async def ring(self) -> Keyring:
        """The keyring as the database has it now; `CustodyAway` when there is none, or its key is not here."""
        self.check()
        async with self.books.open() as store:
            current = await store.current()
        if current is None:
            raise CustodyAway("There is no installation key yet.")
        return await self.ring_of(current.key_id)

    async def ring_of(self, current: str) -> Keyring:
        """The keyring that seals under `current`; a key that was just put there is found."""
        self.check()
        # A replica that was silent is not asked before a rotation: it must look itself before it seals or opens.
        if current not in self.shelf.given:
            await self.shelf.look_again()
        return self.shelf.ring(current)

    def check(self) -> None:
        """Raise `CustodyAway` unless local values can be had now."""
        if self.reason is not None:
            raise CustodyAway(f"Local values can't be had on this replica now: {self.reason}")

    async def _try_again(self) -> None:
        try:
            await self._prepare()
        except Exception as problem:
            if not _is_away(problem) and not isinstance(problem, Misconfigured | KeyFileRefused):
                raise
            reason = problem.detail if isinstance(problem, KeyFileRefused) else cut(problem, 500)
            # Once each: it is tried every second.
            if reason != self.reason:
                _log.error("local-values-refused", reason=reason)
            self.reason = reason

    async def _prepare(self) -> None:
        async with asyncio.timeout(START_WITHIN_S):
            await self._take_up()
        self.reason = None
        self.ready.set()
        _log.info("local-values-ready", keys=sorted(self.shelf.given))

    async def _take_up(self) -> None:
        await self.shelf.look()
        ring = self.shelf.any_ring()
        if ring is None:
            raise Misconfigured(
                f"{self.shelf.directory} holds no installation key: make one with `keyfob keys generate`, or restore "
                "it with `keyfob keys recover`. Without KEYFOB_RESOLVER_KEYS_DIR only references resolve."
            )
        await migrate(self.books.engine, scripts=MIGRATIONS, schema=SCHEMA)
        async with self.books.open() as store:
            current, in_use = await store.current(), set(await store.values_by_key())
        # Before anything is written: with another key than the one that rows name there is nothing to begin.
        ring.expect(in_use | ({current.key_id} if current else set()))
        if current is None:
            await self._adopt()
        await self._tell()

    async def announce(self) -> None:
        """Look at the directory, and tell the other replicas what lies there."""
        await self.shelf.look_again()
        await self._tell()

    async def _adopt(self) -> None:
        """Let the only key of a new installation be its first one."""
        match sorted(self.shelf.given):
            case [only]:
                pass
            case several:
                raise Misconfigured(
                    f"{self.shelf.directory} holds several installation keys ({', '.join(several)}) and none was ever "
                    "used: leave the one to begin with."
                )
        blob = self.shelf.recovery_blob(only)
        me = Actor(idp="keyfob", subject=self.replica_id)
        async with self.books.commit() as work:
            # Another replica may have been faster, perhaps with another key.
            current = await work.store.current()
            if current is None:
                await work.store.make_current(only, recovery=blob, at=work.at, by=me, after=None)
                work.say(
                    KeyChange(
                        id=change_id(),
                        seq=work.seq,
                        action=KeyAction.MADE_CURRENT,
                        key_id=only,
                        recovery_key_id=recovery_id_of(blob),
                        actor=me,
                        at=work.at,
                    )
                )
        # Behind the commit, which said nothing here and was undone: whoever was slower needs the other's key.
        if current is not None:
            self.shelf.ring(only).expect({current.key_id})

    async def _tell(self) -> None:
        async with self.books.open() as store:
            await store.announce(self.replica_id, sorted(self.shelf.given))


def _is_away(problem: BaseException) -> bool:
    """Whether to ask again: also for what the database refuses, since references must not end for it."""
    if isinstance(problem, Misconfigured | KeyFileRefused):
        return False
    return is_outage(problem) or type(problem).__module__.partition(".")[0] in {"asyncpg", "sqlalchemy"}
