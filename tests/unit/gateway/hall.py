"""An instance that has heard its first tick, with the tables on top of it, and servers that end by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest_asyncio

from services.gateway.client.instance import Instance
from services.gateway.client.notices import interpret
from services.gateway.client.resolving import Wanted
from services.gateway.seats import Claim, Seat, Seats
from shared.bus.whole_topic import Batch
from shared.events.receipts import LeaseEnd
from tests.fakes.hospitals import TOKEN_A
from tests.fakes.installation import Installation, Reference
from tests.fakes.upstreams import FakeUpstream, FakeUpstreams
from tests.waiting import until

SECOND_TOKEN = "second-token-of-a"


@dataclass
class Hall:
    """The instance, the tables, and all that the tables ever started."""

    installation: Installation
    instance: Instance
    seats: Seats
    upstreams: FakeUpstreams

    @property
    def started(self) -> list[FakeUpstream]:
        return self.upstreams.started

    def hear(self) -> None:
        """Everything that was said is applied, in this very moment."""
        reads = self.installation.notices._reads
        while not reads.empty():
            read = reads.get_nowait()
            assert isinstance(read, Batch)
            for message in read.messages:
                self.instance._apply(interpret(message, self.instance.identity.policy_key))

    def revoke(self, ended: str) -> int:
        offset = self.installation.say(self.installation.revoke(ended))
        self.hear()
        return offset

    def rotate(self, reference: Reference, value: bytes = b"newer") -> int:
        offset = self.installation.say(self.installation.rotate(reference, value))
        self.hear()
        return offset

    async def sit(self, token: str = TOKEN_A, context: str | None = None) -> Seat:
        return await self.seats.seat(claim(token, context))

    def sitting_down(self, token: str = TOKEN_A) -> asyncio.Task[Seat]:
        return asyncio.create_task(self.sit(token))

    async def gone(self, upstream: FakeUpstream) -> None:
        """Its process or connection does not exist any more, and the tables know."""
        before = len(self.seats)
        upstream.gone()
        await until(lambda: len(self.seats) < before)

    def ended(self) -> list[LeaseEnd]:
        return [one.why for one in self.instance.ledger.unreported()[0]]

    @property
    def open_leases(self) -> int:
        return self.instance.ledger.progress().open_leases

    @property
    def dropped(self) -> int:
        return self.instance.ledger.progress().dropped_offset


def claim(token: str = TOKEN_A, context: str | None = None) -> Claim:
    return Claim(token, Wanted("teller", context))


MakeHall = Callable[..., Awaitable[Hall]]


@pytest_asyncio.fixture
async def hall(installation: Installation) -> AsyncIterator[MakeHall]:
    """Open a hall, with a limit or rules of its own. What still runs in it when the test ends is gone then."""
    opened: list[Hall] = []

    async def make(*, limit: int = 20, one_subject: bool = False, by_hand: bool = False) -> Hall:
        instance = installation.instance(fence_s=1e6, deadline_s=0.05)
        upstreams = FakeUpstreams(by_hand)
        seats = Seats(instance, upstreams, upstream_limit=limit, one_subject=one_subject)
        made = Hall(installation, instance, seats, upstreams)
        opened.append(made)
        await instance.start()
        installation.tick()
        made.hear()
        installation.tokens[SECOND_TOKEN] = replace(installation.tokens[TOKEN_A], rests_on=("mapping/second",))
        return made

    yield make
    for made in opened:
        await made.seats.close(within_s=0)
