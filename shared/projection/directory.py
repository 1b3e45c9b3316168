"""The instances as policy has them now, for services that judge receipts: a running projection of `policy`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from shared import topics
from shared.bus.connection import KafkaSettings
from shared.bus.whole_topic import WholeTopicReader
from shared.errors import Unavailable
from shared.projection.changes import Alert
from shared.projection.instances import KNOWN, Instances, apply_change
from shared.projection.projection import Projection

ASK_WITHIN_S: Final = 5.0
LOOK_AGAIN_S: Final = 0.02


class InstanceDirectory:
    """`run` it as a task; look into `snapshot` at any time."""

    def __init__(self, kafka: KafkaSettings, *, on_alert: Callable[[Alert], None] | None = None) -> None:
        self._reader = WholeTopicReader(kafka, topics.POLICY)
        self._projection: Projection[Instances] = Projection(
            self._reader, known=KNOWN, empty=Instances(), apply=apply_change, on_alert=on_alert
        )

    @property
    def snapshot(self) -> Instances:
        """The newest snapshot."""
        return self._projection.snapshot

    @property
    def reason(self) -> str | None:
        """Why it can't be relied on, safe to show; None when it can."""
        return self._projection.reason

    async def run(self) -> None:
        """Follow policy for ever."""
        await self._projection.run()

    async def moved(self) -> None:
        """Return when the snapshot may have changed, after a second at the latest."""
        await self._projection.wait_for(self._projection.seq + 1, timeout_s=1.0)

    async def caught_up(self) -> None:
        """Return once the snapshot holds everything that was in the topic at the call.

        Raises `Unavailable` when that can't be said within `ASK_WITHIN_S`.
        """
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                end = await self._reader.end_offset()
                while not self._projection.ready or self._projection.position < end:
                    # For a moment only: markers move the position too, and bring no commit.
                    await self._projection.wait_for(self._projection.seq + 1, timeout_s=LOOK_AGAIN_S)
        except Unavailable:
            raise
        except Exception as error:
            raise Unavailable(f"{topics.POLICY}: not read to its end: {type(error).__name__}") from error
