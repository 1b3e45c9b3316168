"""Alerts that are found out elsewhere than in a handler: forged receipts, records that can't be used."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.notifier.domain.alerts import unreadable_record
from services.notifier.domain.ports import Clock, Publish
from shared.events.alerts import Alert

MOST_WAITING: Final = 1_000
# Only against repetition within this process: the alert's id makes repetitions of other replicas harmless.
REMEMBERED: Final = 10_000
AGAIN_AFTER_S: Final = 1.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Alarm:
    """Raises alerts that are found out elsewhere than in a handler, each once in this process."""

    publish: Publish
    clock: Clock
    _waiting: asyncio.Queue[Alert] = field(default_factory=lambda: asyncio.Queue(maxsize=MOST_WAITING))
    _raised: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def raise_(self, alert: Alert) -> None:
        """Publish it soon. Never waits: when too many wait already, the log line has to do."""
        if alert.id in self._raised:
            return
        _log.warning("alert", kind=alert.kind, concerns=alert.concerns, summary=alert.summary)
        # Whoever finds something out reads a topic or writes a projection: waiting for the broker here would stop it.
        try:
            self._waiting.put_nowait(alert)
        except asyncio.QueueFull:
            return
        # Only now: an alert that found no room may be raised again by its next cause.
        self._raised[alert.id] = None
        if len(self._raised) > REMEMBERED:
            self._raised.popitem(last=False)

    def unreadable(self, topic: str, key: str | None, reason: str) -> None:
        """A record of state denied something because it could not be used."""
        self.raise_(unreadable_record(topic, key or "", why=reason, at=self.clock()))

    async def run(self) -> None:
        """Publish for ever, each until it is certain to be there."""
        while True:
            alert = await self._waiting.get()
            await self._publish(alert)

    async def _publish(self, alert: Alert) -> None:
        while True:
            try:
                await self.publish(alert, event_id=alert.id, key=alert.id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the alert is still owed
                _log.warning("alert not published", kind=alert.kind, error=type(error).__name__)
                await asyncio.sleep(AGAIN_AFTER_S)
            else:
                return
