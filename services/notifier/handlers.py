"""Events in, decisions, events out; then what was published, into what is kept.

Two steps, each idempotent by the notice's id, with the topic between them:

    a change     → its notice (and alert) is published, and nothing else: the path that everybody waits for
    a notice     → who must act on it is frozen and noted, with the offset at which it stands

A process that dies between the two loses nothing: the topic itself says which notices there are. One that dies before
its change is settled publishes the same notice again, which changes nothing for whoever acted on the first.

Serial per topic. Changes are taken one by one, because gathering a batch would cost the first of them time; notices
and alerts in batches, because each batch costs one look at policy and one transaction.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.notifier.domain.alerts import alert_for
from services.notifier.domain.convergence import Published, certainly_published
from services.notifier.domain.expectations import Departure
from services.notifier.domain.notices import Change, notice_for
from services.notifier.domain.ports import Clock, Expected, Publish, Transaction
from services.notifier.domain.times import written_at
from services.notifier.pulse import Pulse
from shared.bus.cloudevents import Message, Unreadable, decode
from shared.bus.effects import Ack, Outcome
from shared.events.alerts import Alert
from shared.events.changes import PolicyChange, VaultChange
from shared.events.custody import KeyChange, ValueChange
from shared.events.notices import Notice
from shared.telemetry import current_traceparent, span

# Enough for whoever asks about a change right after making it; anybody later waits out the time that he asked for.
QUIET_KEPT: Final = 10_000
INSTANCE_PREFIX: Final = "instance/"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Quiet:
    """Ids of the newest changes that needed no notice, so that nobody waits for one."""

    _ids: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def add(self, event_id: str) -> None:
        """Remember one."""
        self._ids[event_id] = None
        if len(self._ids) > QUIET_KEPT:
            self._ids.popitem(last=False)

    def __contains__(self, event_id: object) -> bool:
        return event_id in self._ids


@dataclass(frozen=True, slots=True)
class Announcing:
    """Changes in, notices and alerts out."""

    publish: Publish
    quiet: Quiet

    async def on_change(self, message: Message) -> Outcome:
        """Publish what a change calls for.

        Raises `Unreadable` for what is no change, `Unavailable` when a notice is not certain to be in its topic.
        """
        if message.type == KeyChange.TYPE:
            # Another key for the same values: whoever holds one may go on.
            return Ack()
        change, parent = _change(message), message.header("traceparent")
        # The notice first: instances hold values until they read it, people read alerts minutes later.
        await self._announce(change, parent)
        alert = alert_for(change)
        if alert is not None:
            await self.publish(alert, event_id=alert.id, key=alert.id, traceparent=parent)
        return Ack()

    async def _announce(self, change: Change, parent: str | None) -> None:
        notice = notice_for(change)
        if notice is None:
            self.quiet.add(change.id)
            return
        with span("announce", parent=parent, notice=notice.id, cause=notice.cause_id):
            await self.publish(notice, event_id=notice.id, key=None, traceparent=current_traceparent())


@dataclass(frozen=True, slots=True)
class Noting:
    """Notices as they stand in the topic, into what is kept."""

    expected: Expected
    begin: Transaction
    noted: Pulse
    clock: Clock

    async def on_notices(self, messages: tuple[Message, ...]) -> Outcome:
        """Freeze and note. Ticks are passed over, and so is what nobody can read: the topic is everybody's."""
        published = [one for message in messages if (one := self._published(message)) is not None]
        if not published:
            return Ack()
        # One transaction: members are frozen and departures kept together, or the batch is read again.
        async with self.begin() as notes:
            # Before freezing, since a batch may hold the end of an instance and later notices that must not wait for
            # it.
            await notes.depart([departure for one in published for departure in _departures(one)])
            await notes.note(await self.expected(published, notes))
        self.noted.beat()
        return Ack()

    def _published(self, message: Message) -> Published | None:
        if message.type != Notice.TYPE:
            return None
        # Instances drop everything at such a message by themselves; there is nothing that could be waited for.
        try:
            notice = decode(message, Notice)
        except Unreadable as error:
            _log.error("notice unreadable", offset=message.offset, reason=error.detail)
            return None
        at = written_at(message.timestamp_ms)
        bounds_from = certainly_published(given_at=at, read_at=self.clock())
        return Published(notice=notice, offset=message.offset, at=at, bounds_from=bounds_from, members=())


@dataclass(frozen=True, slots=True)
class AlertFeed:
    """Alerts, ours and those of other replicas, into the feed for people."""

    begin: Transaction

    async def on_alerts(self, messages: tuple[Message, ...]) -> Outcome:
        """Keep them. Raises `Unreadable` for one that is no alert."""
        # One statement can't insert the same id twice, and a batch may hold repetitions.
        raised = {alert.id: alert for alert in (decode(message, Alert) for message in messages)}
        async with self.begin() as notes:
            await notes.keep_alerts(list(raised.values()))
        return Ack()


def _change(message: Message) -> Change:
    match message.type:
        case VaultChange.TYPE:
            return decode(message, VaultChange)
        case ValueChange.TYPE:
            return decode(message, ValueChange)
        case _:
            return decode(message, PolicyChange)


def _departures(one: Published) -> Iterable[Departure]:
    """Instances that a notice tells the end of."""
    return (
        Departure(instance_id=ended, policy_seq=one.notice.policy_seq or 0, offset=one.offset, at=one.bounds_from)
        for ended in one.notice.ended
        if ended.startswith(INSTANCE_PREFIX)
    )
