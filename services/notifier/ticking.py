"""Passes policy's signed tick into `notices`, as it stands in `policy`: a gateway that gets none fences itself.

Each tick once per replica; a repeated one is harmless, because a gateway looks at the time inside. A tick that policy
did not sign is not passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from services.notifier.alarms import Alarm
from services.notifier.domain.ports import Publish
from shared.bus.signatures import from_header
from shared.errors import Unavailable
from shared.events.notices import NoticeTick
from shared.projection.instances import Instances
from shared.projection.records import Authority, TypedRecord

_log = structlog.get_logger(__name__)

# A fifth of the time between two ticks.
RETRY_AFTER_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Ticker:
    """`moved` returns when the snapshot may have changed."""

    snapshot: Callable[[], Instances]
    moved: Callable[[], Awaitable[object]]
    publish: Publish
    authority: Authority
    alarm: Alarm

    async def run(self) -> None:
        """Pass ticks on for ever."""
        passed: TypedRecord | None = None
        while True:
            tick = self.snapshot().tick
            # By identity: each tick that was read is another object, and the snapshot keeps only the newest.
            if tick is None or tick is passed:
                await self.moved()
            elif await self._pass(tick):
                passed = tick
            else:
                # By the next attempt there may be a newer one; an old one proves nothing.
                await asyncio.sleep(RETRY_AFTER_S)

    async def _pass(self, tick: TypedRecord) -> bool:
        # Gateways check again; passing it on would only spread what somebody planted.
        if not self.authority.verified(tick):
            self.alarm.unreadable(tick.topic, tick.key, "the tick is not signed by policy")
            return True
        contract = NoticeTick(payload=tick.payload, signature=from_header(tick.signed) or b"", key_id=tick.key_id or "")
        try:
            await self.publish(contract, event_id=f"tick/{tick.seq}", key=None)
        except Unavailable as error:
            _log.warning("tick not passed on", reason=error.detail)
            return False
        return True
