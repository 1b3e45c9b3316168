"""What is known of everybody who must act: the enrolled instances from `policy`, and what each said in `receipts`.

Every replica reads all receipts by itself, from some minutes back, into memory: the answer to "who has acted?" is then
one look away wherever it is asked, and a restarted replica is whole again in a moment, because receipts are
cumulative. What members proved is also written down (`settling`), so that it outlives the topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

from services.notifier.alarms import Alarm
from services.notifier.domain.alerts import alert_for_finding, duplicated_instance, forged_receipt
from services.notifier.domain.convergence import Bounds, Published
from services.notifier.domain.expectations import Departure, expected_members, is_gone
from services.notifier.domain.ports import Clock, Notes
from services.notifier.domain.receipts import Heard, live_runs
from services.notifier.domain.times import EPOCH, written_at
from services.notifier.pulse import Pulse
from shared.bus.cloudevents import Message, Unreadable, decode
from shared.delivery.receipts import Nobody, Resolvers
from shared.errors import Unavailable
from shared.events.receipts import GatewayReceipt, ResolverReceipt
from shared.projection.instances import Instances, KnownInstance
from shared.projection.records import Authority

ASK_AGAIN_S: Final = 0.5


class Policy(Protocol):
    """The instances, as policy has them."""

    @property
    def snapshot(self) -> Instances:
        """The newest snapshot."""
        ...

    async def caught_up(self) -> None:
        """Return once the snapshot holds everything that was in `policy` at the call; `Unavailable` if it can't."""
        ...


class ReceiptTopic(Protocol):
    """All partitions of `receipts`."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read now, safe to show; None when all is well."""
        ...

    async def run(self, take: Callable[[tuple[Message, ...]], Awaitable[None]]) -> None:
        """Have batches taken in, for ever."""

    async def caught_up(self) -> None:
        """Return once everything that was there at the call was taken in; `Unavailable` if that can't be said."""
        ...


@dataclass(frozen=True, slots=True)
class Members:
    """The members, and what they said."""

    policy: Policy
    receipts: ReceiptTopic
    authority: Authority
    alarm: Alarm
    bounds: Bounds
    clock: Clock
    heard: Heard
    changed: Pulse
    resolvers: Resolvers = field(default_factory=Resolvers)
    """Vouch for instances of the profile `https`."""

    async def expected(self, published: Sequence[Published], notes: Notes) -> tuple[Published, ...]:
        """The port `Expected`: everybody who must act on these notices."""
        # An instance that enrolled, or a resolver that spoke, just before the notice may hold the old value.
        await asyncio.gather(self.policy.caught_up(), self.receipts.caught_up())
        instances = list(self.policy.snapshot.all())
        inactive = [one for one in instances if not one.active]
        told = await notes.departures([one.id for one in inactive])
        frozen = []
        for one in published:
            gone = {instance.id for instance in inactive if self._is_gone(instance, told.get(instance.id), one)}
            members = expected_members(instances, self.heard.resolvers(), gone=gone, at=one.at, bounds=self.bounds)
            frozen.append(replace(one, members=members))
        # After freezing: the first notice since then waits for it, and those after its bound don't.
        await notes.depart([_untold(one, published[0]) for one in inactive if one.id not in told])
        return tuple(frozen)

    def _is_gone(self, instance: KnownInstance, departure: Departure | None, one: Published) -> bool:
        runs = self.heard.gateway_runs(instance.id)
        return is_gone(instance, departure, runs, at=one.bounds_from, bounds=self.bounds)

    async def listen(self) -> None:
        """Take in receipts for ever."""
        await self.receipts.run(self.take)

    async def keep_complete(self) -> None:
        """Note for ever up to when everything that was said was taken in."""
        while True:
            # Before asking: what is said while the answer is under way may be missing from it.
            asked_at = self.clock()
            with suppress(Unavailable):
                await self.receipts.caught_up()
                self.heard.complete_until = asked_at
            await asyncio.sleep(ASK_AGAIN_S)

    @property
    def trouble(self) -> str | None:
        """Why it is not known what members said, safe to show; None when all is well."""
        unread = "not read to the end yet" if self.heard.complete_until == EPOCH else None
        return self.receipts.trouble or unread

    async def take(self, messages: Iterable[Message]) -> None:
        """Take in receipts. Those of instances that nobody knows wait until policy was asked once more."""
        # Policy and receipts are different topics: a first receipt may overtake the enrolment that makes it genuine.
        unknown = [message for message in messages if not self._take(message)]
        if unknown:
            await self._caught_up()
            for message in unknown:
                self._take(message, certainly=True)
        # Four bounds: nobody frozen can still wait for a resolver that has refused everything for three of them.
        # Nor for one that may have spoken in what is still to be read.
        known_until = min(self.clock(), self.heard.complete_until)
        self.heard.forget(silent_since=known_until - 4 * self.bounds.resolver)
        self.changed.beat()

    async def _caught_up(self) -> None:
        while True:
            try:
                return await self.policy.caught_up()
            except Unavailable:
                await asyncio.sleep(ASK_AGAIN_S)

    def _take(self, message: Message, *, certainly: bool = False) -> bool:
        """Take in one receipt, what is none ignored; False for an instance that is unknown, unless `certainly` so."""
        # Never later than now: a producer whose clock is ahead would look alive after it is gone.
        heard_at = min(written_at(message.timestamp_ms), self.clock())
        try:
            if message.type == ResolverReceipt.TYPE:
                self.heard.resolver(decode(message, ResolverReceipt), heard_at)
                return True
            receipt = decode(message, GatewayReceipt)
        except Unreadable as error:
            self.alarm.unreadable(message.topic, message.key, error.detail)
            return True
        instance = self.policy.snapshot.get(receipt.instance_id)
        if instance is None and not certainly:
            return False
        if self._is_genuine(message, receipt, instance, heard_at):
            self.heard.gateway(receipt, heard_at)
            self._watch_for_twins(receipt.instance_id, heard_at)
            self._tell_findings(receipt, "" if instance is None else instance.name)
        return True

    def _is_genuine(
        self, message: Message, receipt: GatewayReceipt, instance: KnownInstance | None, heard_at: datetime
    ) -> bool:
        voucher = None if instance is None else instance.voucher(self.authority, self.resolvers)
        if voucher is not None and voucher.vouches(message, receipt):
            return True
        # It goes on saying what it always said; what that is worth now, people know who banned it.
        if isinstance(voucher, Nobody):
            return False
        # Of an instance that was removed before this replica started, nothing is left to verify with.
        if instance is None or instance.typed is not None:
            self.alarm.raise_(forged_receipt(receipt.instance_id, known=instance is not None, at=heard_at))
        return False

    def _tell_findings(self, receipt: GatewayReceipt, name: str) -> None:
        for finding in receipt.findings:
            alert = alert_for_finding(finding, receipt.instance_id, name)
            if alert is not None:
                self.alarm.raise_(alert)

    def _watch_for_twins(self, instance_id: str, at: datetime) -> None:
        live = live_runs(self.heard.gateway_runs(instance_id), bound=self.bounds.gateway)
        instance = self.policy.snapshot.get(instance_id)
        if len(live) > 1 and instance is not None:
            runs = tuple(run.run for run in live)
            self.alarm.raise_(duplicated_instance(instance_id, instance.name, runs=runs, at=at))


def _untold(instance: KnownInstance, one: Published) -> Departure:
    """The end of an instance of which nothing is kept here any more: wait for it once, from this notice on."""
    return Departure(instance_id=instance.id, policy_seq=instance.since_seq, offset=one.offset, at=one.bounds_from)
