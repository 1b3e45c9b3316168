"""One running instance: what it holds, what it obeys, what it proves. The whole of the client part behind one door.

Everything that changes the ledger happens in the event loop without waiting in between, so a notice is either before
an answer or after it. Whoever uses this class sets `on_fenced`, stops using what it is told about, and calls `let_go`
once the process or connection that held the value is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from services.gateway.client.environment import Environment
from services.gateway.client.fence import TickFence
from services.gateway.client.identity import Identity
from services.gateway.client.leases import Fenced, Floor, Lease, Moment
from services.gateway.client.ledger import Accepted, Ledger
from services.gateway.client.notices import Happening, Heard, Lost, Passed, Reader, Ticked, happenings
from services.gateway.client.receipts import ReceiptWriter
from services.gateway.client.resolving import Resolvers, Wanted, verified_server
from shared import telemetry
from shared.crypto.secret import SecretBytes
from shared.delivery.messages import ContextName, ResolveAnswer, SubjectName
from shared.errors import NotFresh, Unavailable
from shared.events.policy import ServerRecord
from shared.events.receipts import FindingKind, LeaseEnd

ATTEMPTS: Final = 3
"""How often a resolve is repeated because a notice crossed it; each repetition asks for a higher floor."""
WATCH_EVERY_S: Final = 0.25
"""How often leases and the fence are looked at even when nobody uses them."""

OnFenced = Callable[[tuple[Fenced, ...]], None]

_log = structlog.get_logger(__name__)


def now() -> Moment:
    """This moment, on both clocks."""
    return Moment(time.monotonic(), time.time())


@dataclass(frozen=True, slots=True)
class Holding:
    """The values of one server for one subject, and the leases under which they are held."""

    server: ServerRecord
    context: ContextName
    subject: SubjectName
    subject_expires_at: float
    leases: tuple[Lease, ...]
    values: Mapping[str, SecretBytes]

    @property
    def lease_ids(self) -> tuple[str, ...]:
        """What to let go of."""
        return tuple(lease.id for lease in self.leases)

    @property
    def versions(self) -> tuple[tuple[str, str, str], ...]:
        """Field, reference and version of each value, sorted: two holdings with the same carry the same."""
        pairs = zip(self.values, self.leases, strict=True)
        return tuple(sorted((name, lease.reference_id, lease.version) for name, lease in pairs))

    def wipe(self) -> None:
        """Overwrite the values."""
        for value in self.values.values():
            value.wipe()


@dataclass(slots=True)
class Instance:
    """See the module. `start` once, then `run` as long as the process lives."""

    identity: Identity
    reader: Reader
    resolvers: Resolvers
    receipts: ReceiptWriter
    ledger: Ledger
    fence: TickFence = field(default_factory=TickFence)
    clock: Callable[[], Moment] = now
    on_fenced: OnFenced = lambda _: None
    environment: Environment = field(default_factory=Environment)
    _started: bool = False
    _trace: str | None = None
    """Of the notice that ended leases last: the receipts about it belong to its trace."""

    async def start(self) -> None:
        """Capture the position in `notices`: whatever is resolved from now on, its notices will be seen."""
        self.ledger.start_at(await self.reader.open())
        self._started = True

    async def run(self) -> None:
        """Read notices, write receipts, watch the clocks; cancel to stop."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._obey(), name="notices")
                tasks.create_task(self.receipts.run(), name="receipts")
                # If one of the three fails the process ends: an instance that reads but can't tell is worse than none.
                tasks.create_task(self._watch(), name="expiry and fence")
        finally:
            await self.reader.close()

    def not_ready(self) -> str | None:
        """Why nothing can be resolved now, safe to show; None when it can."""
        if not self._started:
            return self.reader.trouble or "the position in notices is not known yet"
        if self.fence.closed(self.clock()):
            return "no tick of policy within the bound: fenced"
        return self.reader.trouble

    async def resolve(self, token: str, wanted: Wanted, *, traceparent: str | None = None) -> Holding:
        """Values and leases for the subject of `token`.

        Raises `Refused` with the resolver's own words, `NotFresh` while this instance is fenced, `Unavailable`.
        """
        for _ in range(ATTEMPTS):
            self._check_open()
            # Before the call goes out: each notice from now on may end what it brings.
            out = self.ledger.ask()
            try:
                answer = await self.resolvers.ask(token, wanted, self.ledger.floor, traceparent=traceparent)
            except BaseException:
                # Receipts may have waited for this one.
                self.ledger.give_up(out)
                self.receipts.hurry()
                raise
            try:
                server = verified_server(answer, self.identity)
                leases = _leases(answer, self.clock())
                if self.ledger.settle(out, leases) == Accepted():
                    return self._hold(answer, server, leases)
            except BaseException:
                self.ledger.give_up(out)
                answer.wipe()
                raise
            # A notice that ends what the answer carries came while the call was out.
            answer.wipe()
            self.receipts.hurry()
        raise Unavailable("What was asked for is changing just now.")

    def usable(self, holding: Holding) -> bool:
        """Whether the values may be used at this very moment."""
        moment = self.clock()
        if self.fence.closed(moment):
            self._fence_all()
            return False
        # Looked at on every use, not only by the watch: a quarter of a second is a use after the end.
        return all(self.ledger.book.usable(lease.id, moment) for lease in holding.leases)

    def found(self, kind: FindingKind, places: Mapping[str, int]) -> None:
        """Values showed where they should not have been: places by lease id, for the next receipt."""
        if not places:
            return
        self.ledger.found(kind, places)
        # People should hear of somebody who tries values out; that one was replaced can wait for the heartbeat.
        if kind is FindingKind.GUESSED:
            self.receipts.hurry()

    def let_go(self, holding: Holding, why: LeaseEnd) -> None:
        """The process or connection that held the values is gone."""
        holding.wipe()
        self.end(holding.lease_ids, why)

    def end(self, lease_ids: Iterable[str], why: LeaseEnd) -> None:
        """These leases are over, and nothing holds their values any more."""
        self.ledger.end(lease_ids, why, self.clock())
        self.receipts.hurry(self._trace if why is LeaseEnd.NOTICE else None)

    def _hold(self, answer: ResolveAnswer, server: ServerRecord, leases: tuple[Lease, ...]) -> Holding:
        self.ledger.echo(f"{answer.record.stream}/{answer.record.n}/{answer.record.hash}")
        try:
            values = self._values(answer)
        except Unavailable:
            # The record says that they were given: the receipt says that they were not kept.
            self.end([lease.id for lease in leases], LeaseEnd.SESSION)
            raise
        holding = Holding(server, answer.context, answer.subject, answer.subject_expires_at, leases, values)
        # The answer may have been on its way for seconds; the bound does not wait for it.
        if self.fence.closed(self.clock()):
            self.let_go(holding, LeaseEnd.FENCED)
            self._check_open()
        return holding

    def _values(self, answer: ResolveAnswer) -> dict[str, SecretBytes]:
        """Values by field: those that came, and those that are here already; `Unavailable` if one can't be read."""
        values: dict[str, SecretBytes] = {}
        try:
            for one in answer.fields:
                if one.value is not None:
                    values[one.name] = one.value
                elif one.variable is not None:
                    values[one.name] = self.environment.value(one.variable)
        except Unavailable:
            for value in values.values():
                value.wipe()
            raise
        return values

    def _check_open(self) -> None:
        reason = None if self._started else "starting"
        if self.fence.closed(self.clock()):
            self._fence_all()
            reason = "fenced"
        if reason is not None:
            raise NotFresh(f"This gateway has not heard from policy within its bound ({reason}); it holds nothing.")

    async def _obey(self) -> None:
        async for happening in happenings(self.reader, self.identity.policy_key):
            self._apply(happening)

    def _apply(self, happening: Happening) -> None:
        match happening:
            case Heard(offset, notice, traceparent):
                fenced = self.ledger.apply(offset, notice)
                if fenced:
                    # By the newest tick before the notice: a later one says nothing about what the notice ended, and
                    # whoever waits counts this instance's bound from the notice on.
                    within_s = self.fence.remaining_s(self.clock())
                    fenced = tuple(replace(one, within_s=within_s) for one in fenced)
                    with telemetry.span("end leases", parent=traceparent):
                        self._tell(fenced)
            case Ticked(offset, seq, signed_at):
                self.ledger.pass_over(offset)
                # Somebody who was stopped beyond the bound may read a new tick before looking at the clock: what it
                # held until then is over all the same, and others already count on that.
                if self.fence.closed(self.clock()):
                    self._fence_all()
                self.fence.hear(seq=seq, signed_at=signed_at, moment=self.clock())
            case Passed(offset):
                self.ledger.pass_over(offset)
            case Lost(offset, reason):
                self._told_to_drop(self.ledger.lose(offset), reason)

    def _fence_all(self) -> None:
        self._told_to_drop(self.ledger.book.fence_all(), "no tick of policy within the bound")

    def _told_to_drop(self, fenced: tuple[Fenced, ...], reason: str) -> None:
        if fenced:
            _log.error("everything fenced", leases=len(fenced), reason=reason)
            self._tell(fenced)

    def _tell(self, fenced: tuple[Fenced, ...]) -> None:
        """First whoever uses the values, who may let go of some at once; then the receipt, in the notice's trace."""
        self._trace = telemetry.current_traceparent()
        self.on_fenced(fenced)
        self.receipts.hurry(self._trace)

    async def _watch(self) -> None:
        while True:
            moment = self.clock()
            if self.fence.closed(moment):
                self._fence_all()
            expired = self.ledger.book.fence_expired(moment)
            if expired:
                self._tell(expired)
            await asyncio.sleep(WATCH_EVERY_S)


def _leases(answer: ResolveAnswer, moment: Moment) -> tuple[Lease, ...]:
    decided = Floor(answer.floor.policy, answer.floor.catalog)
    return tuple(
        Lease(
            id=one.lease.id,
            reference_id=one.lease.reference_id or "",
            version=one.lease.version,
            rests_on=frozenset(one.lease.rests_on),
            decided=decided,
            expires_at=one.lease.expires_at,
            expires_at_monotonic=moment.monotonic + (one.lease.expires_at - moment.wall),
        )
        for one in answer.fields
    )
