"""Who may use which running MCP server: one seat per token and target, one upstream per subject and what it carries.

A seat is an authorisation: it stands on leases of its own, from a resolve with its own token, and ends with them.
Seats of one subject that lead to the same profile, definition and versions share one upstream; the last one that
leaves takes it along. So two tokens of one person never widen each other, and a renewed lease does not restart a
server that already has the right value.

Serial per seat, parallel across seats. All changes of the tables happen without waiting in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import anyio
import structlog
from mcp.client.session import ClientSession

from services.gateway.client.instance import Holding, Instance
from services.gateway.client.leases import Fenced, Moment, Urgency
from services.gateway.client.resolving import Refused, Wanted
from services.gateway.findings import Findings
from services.gateway.upstream import Ended, Upstream
from shared import telemetry
from shared.crypto.framing import sha256
from shared.errors import Unavailable
from shared.events.definitions import StdioServer
from shared.events.receipts import LeaseEnd

TRIES: Final = 3
# A tenth of fifteen minutes leaves a resolver that is away time to come back.
RENEW_BEFORE: Final = 0.1
"""Part of a lease's time that is left when it is renewed on use."""

UNAUTHORIZED: Final = 401

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """A subject, as the resolver named it."""

    idp_id: str
    subject: str


@dataclass(frozen=True, slots=True, repr=False)
class Claim:
    """A token and what it is presented for. The token shows in no repr."""

    token: str
    wanted: Wanted

    @property
    def key(self) -> SeatKey:
        """The seat that it may have."""
        return SeatKey(sha256(self.token.encode()), self.wanted)


@dataclass(frozen=True, slots=True)
class SeatKey:
    """The digest of a token and a target."""

    token_digest: bytes = field(repr=False)
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Load:
    """What an upstream carries: the same load needs no second upstream."""

    caller: Caller
    profile_id: str
    definition_digest: str
    versions: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, holding: Holding) -> Load:
        """What an upstream started with `holding` carries."""
        return cls(
            Caller(holding.subject.idp_id, holding.subject.subject),
            holding.context.profile_id,
            holding.server.digest,
            holding.versions,
        )


@dataclass(eq=False, slots=True)
class Running:
    """One upstream, what it carries, and the seats that rest on it."""

    load: Load
    upstream: Upstream
    stdio: bool
    seats: set[Seat] = field(default_factory=set)
    left: list[Seat] = field(default_factory=list)
    """Seats that may not call any more; their leases end when the upstream is gone."""
    why: LeaseEnd | None = None
    """Why it was ended; None while it lives, and where it ended by itself."""


@dataclass(eq=False, slots=True)
class Seat:
    """One authorisation in force. `calls` are the scopes of the calls that run on it."""

    key: SeatKey
    holding: Holding
    running: Running
    renew_at: float
    """On the instance's monotonic clock."""
    calls: set[anyio.CancelScope] = field(default_factory=set)
    stateless: bool = False
    """It was used without a session, so the end of a session is not the end of its use."""


StartUpstream = Callable[[Holding], Upstream]


class Seats:
    """The tables of one gateway."""

    def __init__(
        self,
        instance: Instance,
        start_upstream: StartUpstream,
        *,
        upstream_limit: int,
        one_subject: bool = False,
        end_on_guess: bool = False,
    ) -> None:
        """`one_subject`: refuse a second subject's stdio server while one runs.

        `end_on_guess`: a call whose arguments hold a value of its server's does not reach it, and ends its seat.
        """
        self._instance = instance
        self._start_upstream = start_upstream
        self._upstream_limit = upstream_limit
        self._one_subject = one_subject
        self._told_refused = False
        self._findings = Findings(instance)
        self._end_on_guess = end_on_guess
        self._seats: dict[SeatKey, Seat] = {}
        self._running: dict[Load, Running] = {}
        self._alive: set[Running] = set()
        self._by_lease: dict[str, Seat] = {}
        self._locks: WeakValueDictionary[SeatKey, asyncio.Lock] = WeakValueDictionary()
        self._callers: dict[bytes, tuple[Caller, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        instance.on_fenced = self.fenced

    def __len__(self) -> int:
        """How many upstreams there are, those that drain or stop included."""
        return len(self._alive)

    async def caller(self, claim: Claim) -> Caller:
        """Whose token it is. The resolver says so; what it said counts until the token expires."""
        known = self._callers.get(claim.key.token_digest)
        # The wall clock: a token's end is a date.
        if known is not None and known[1] > time.time():
            return known[0]
        return (await self.seat(claim)).running.load.caller

    async def seat(self, claim: Claim) -> Seat:
        """A seat whose upstream is open. Raises `Refused`, `NotFresh`, `Unavailable`."""
        for _ in range(TRIES):
            seat = self._seats.get(claim.key)
            if seat is None or not self._good(seat) or self._due(seat):
                seat = await self._renewed(claim)
            try:
                await seat.running.upstream.ready()
            except Unavailable:
                # What was ended while it started may already have a successor. What can't start won't at the next
                # try, and each try is one more release on record.
                if seat.running.why is None:
                    raise
            # The seat may have ended while we waited, although its server goes on for another one.
            if self._good(seat):
                return seat
        raise Unavailable("What was asked for is changing just now.")

    @asynccontextmanager
    async def call(self, claim: Claim, arguments: bytes = b"") -> AsyncIterator[ClientSession]:
        """The session for one call with `arguments` as JSON; `Ended` if the right to it ends meanwhile."""
        seat = await self.seat(claim)
        if self._findings.guessed(seat.running.upstream, seat.holding, arguments) and self._end_on_guess:
            self._throw_out(seat, LeaseEnd.SESSION)
            raise Ended
        # Of its own for each call: who loses the right to call must not disturb others on the same server.
        with anyio.CancelScope() as scope:
            seat.calls.add(scope)
            try:
                async with seat.running.upstream.call() as session:
                    yield session
            finally:
                seat.calls.discard(scope)
                self._tell_redacted(seat.running)
        if scope.cancelled_caught:
            raise Ended

    def fenced(self, fenced: tuple[Fenced, ...]) -> None:
        """Act on leases that may not be used any more: nothing here waits."""
        for one in fenced:
            seat = self._by_lease.get(one.lease.id)
            if seat is None:
                continue
            # A version is replaced for the whole server; a right ends for one seat.
            if one.urgency is Urgency.DRAIN:
                self._drain(seat.running, one.why, one.within_s)
            else:
                self._throw_out(seat, one.why)

    def vacate(self, key: SeatKey) -> None:
        """The last session on this seat was closed."""
        seat = self._seats.get(key)
        if seat is None or seat.stateless:
            return
        running = seat.running
        self._leave(seat)
        # The value stays there for others, under leases of theirs.
        if running.seats:
            running.left.remove(seat)
            self._end((seat,), LeaseEnd.SESSION)
        else:
            self._retire(running, LeaseEnd.SESSION)
            running.upstream.stop()

    async def tend(self, *, idle_s: float, every_s: float = 1.0) -> None:
        """Stop what nobody calls, forget tokens that expired, tell what was said between calls; for ever."""
        while True:
            await asyncio.sleep(every_s)
            for running in self._alive:
                self._tell_redacted(running)
            for running in list(self._running.values()):
                if running.upstream.idle_for > idle_s:
                    self._retire(running, LeaseEnd.SESSION)
                    running.upstream.stop()
            moment = time.time()
            self._callers = {digest: known for digest, known in self._callers.items() if known[1] > moment}

    async def close(self, *, within_s: float) -> None:
        """Stop every upstream and wait until all are gone."""
        for running in list(self._running.values()):
            self._retire(running, LeaseEnd.SESSION)
            running.upstream.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _good(self, seat: Seat) -> bool:
        return seat.running.upstream.takes_calls and self._instance.usable(seat.holding)

    def _due(self, seat: Seat) -> bool:
        return self._instance.clock().monotonic >= seat.renew_at

    async def _renewed(self, claim: Claim) -> Seat:
        """The seat that is good as it is, or one from a new resolve: one resolve, however many wait for it."""
        async with self._locks.setdefault(claim.key, asyncio.Lock()):
            seat = self._seats.get(claim.key)
            if seat is not None and self._good(seat) and not self._due(seat):
                return seat
            try:
                holding = await self._instance.resolve(
                    claim.token, claim.wanted, traceparent=telemetry.current_traceparent()
                )
            except Unavailable:
                # No news is no revocation: a lease holds until it is over or a notice ends it.
                if seat is not None and self._good(seat):
                    return seat
                raise
            except Refused as refused:
                if refused.status == UNAUTHORIZED:
                    self._callers.pop(claim.key.token_digest, None)
                raise
            return self._sit(claim.key, holding)

    def _sit(self, key: SeatKey, holding: Holding) -> Seat:
        """Give the holding a seat: on the upstream that carries the same already, or on a new one."""
        load = Load.of(holding)
        running = self._running.get(load)
        # One that drains carries the same, but was told to take nobody any more.
        if running is None or not running.upstream.takes_calls:
            running = self._start(load, holding)
        # The process has the value already.
        else:
            holding.wipe()
        self._callers[key.token_digest] = (load.caller, holding.subject_expires_at)
        seat = Seat(key, holding, running, renew_at=_renew_at(holding, self._instance.clock()))
        # Entered before the old one leaves, so that an upstream that both share never looks empty in between.
        before = self._seats.pop(key, None)
        self._seats[key] = seat
        running.seats.add(seat)
        self._by_lease.update(dict.fromkeys(holding.lease_ids, seat))
        if before is not None:
            self._replace(before, seat)
        return seat

    def _replace(self, before: Seat, seat: Seat) -> None:
        if before.running is seat.running:
            # The same process, under newer leases: what runs on it goes on.
            seat.calls, seat.stateless = before.calls, before.stateless
            before.running.seats.discard(before)
            self._end((before,), LeaseEnd.REPLACED)
        else:
            self._leave(before)
            if not before.running.seats:
                within_s = self._instance.fence.remaining_s(self._instance.clock())
                self._drain(before.running, LeaseEnd.REPLACED, within_s)

    def _start(self, load: Load, holding: Holding) -> Running:
        try:
            stdio = isinstance(holding.server.definition, StdioServer)
            self._check_room(load, stdio=stdio)
            running = Running(load, self._start_upstream(holding), stdio)
        except Unavailable:
            self._instance.let_go(holding, LeaseEnd.SESSION)
            raise
        self._running[load] = running
        self._alive.add(running)
        # A task of the tables and not of the request: an agent that goes away must not end other people's server.
        task = asyncio.create_task(self._live(running), name="upstream")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return running

    def _check_room(self, load: Load, *, stdio: bool) -> None:
        if len(self._alive) >= self._upstream_limit:
            raise Unavailable("This gateway runs as many MCP servers as it may.", retry_after_s=5)
        # Also those that drain or stop: as long as a process is there, one of the same UID can read its environment.
        others = {running.load.caller for running in self._alive if running.stdio} - {load.caller}
        if self._one_subject and stdio and others:
            self._tell_refused()
            raise Unavailable(
                "This gateway has no sandbox for local MCP servers, so it runs those of one subject at a time.",
                retry_after_s=5,
            )

    def _tell_refused(self) -> None:
        # Once: agents may ask as often as they like.
        if not self._told_refused:
            self._told_refused = True
            _log.warning("no sandbox: other subjects' local MCP servers are refused", setting="KEYFOB_GATEWAY_SANDBOX")

    async def _live(self, running: Running) -> None:
        try:
            await running.upstream.run()
        finally:
            self._retire(running, running.why)
            # Before its leases are over: what it said on its way out.
            self._tell_redacted(running)
            self._end(running.left, running.why or LeaseEnd.SESSION)
            running.left.clear()
            self._alive.discard(running)

    def _tell_redacted(self, running: Running) -> None:
        # Any seat will do: all are one subject's, and their leases are for the same versions.
        for seat in [*running.seats, *running.left][:1]:
            self._findings.redacted(running.upstream, seat.holding)

    def _drain(self, running: Running, why: LeaseEnd, within_s: float) -> None:
        self._retire(running, why)
        running.upstream.drain(within_s)

    def _retire(self, running: Running, why: LeaseEnd | None) -> None:
        """No seat leads to it any more."""
        if self._running.get(running.load) is running:
            del self._running[running.load]
            running.why = why
        # Their leases go on until the process is gone: it holds the value, whoever may call it.
        for seat in list(running.seats):
            self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        if self._seats.get(seat.key) is seat:
            del self._seats[seat.key]
        seat.running.seats.discard(seat)
        seat.running.left.append(seat)

    def _throw_out(self, seat: Seat, why: LeaseEnd) -> None:
        """Cancel what runs on it. The upstream goes with its last seat, at once."""
        for scope in list(seat.calls):
            scope.cancel()
        running = seat.running
        if seat in running.seats:
            self._leave(seat)
        if running.seats:
            running.left.remove(seat)
            self._end((seat,), why)
            return
        self._retire(running, why)
        running.why = why
        running.upstream.kill()

    def _end(self, seats: Iterable[Seat], why: LeaseEnd) -> None:
        ids = [lease_id for seat in seats for lease_id in seat.holding.lease_ids]
        for lease_id in ids:
            self._by_lease.pop(lease_id, None)
        self._instance.end(ids, why)


def _renew_at(holding: Holding, moment: Moment) -> float:
    """When the first of its leases has a tenth of its time left, on the monotonic clock."""
    left = min((lease.expires_at_monotonic - moment.monotonic for lease in holding.leases), default=0.0)
    return moment.monotonic + left * (1 - RENEW_BEFORE)
