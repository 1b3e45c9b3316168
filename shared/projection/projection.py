"""A projection: follows a topic of state and swaps an immutable snapshot once per fetched batch.

What to ask before using a snapshot: `ready` (everything up to the end seen at start was applied, and the topic can be
trusted) and `freshness.is_fresh()` (it is current now). What a caller has seen elsewhere, it can `wait_for`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Generic, TypeVar

import structlog

from shared.bus.freshness import Clock, Freshness
from shared.bus.whole_topic import Batch, OrderLost, Restarted, WholeTopicReader
from shared.errors import cut
from shared.projection.bulk import BULK_MESSAGES, collector_aside
from shared.projection.changes import Alert, Change, Upserted
from shared.projection.fold import Fold
from shared.projection.records import Registry

log = structlog.get_logger()

S = TypeVar("S")


class Projection(Generic[S]):
    """The snapshot `S` of one topic, kept by the service's pure `apply`.

    `empty` is the snapshot of an empty topic. `apply` must not change the snapshot it is given; when it raises, the
    record counts as unreadable. `on_alert` is called for everything that denied because it could not be read.
    """

    def __init__(
        self,
        reader: WholeTopicReader,
        *,
        known: Registry,
        empty: S,
        apply: Callable[[S, Change], S],
        on_alert: Callable[[Alert], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._reader = reader
        self._known = known
        self._empty = empty
        self._apply = apply
        self._tell = on_alert
        self._snapshot = empty
        self._fold = self._new_fold()
        self._position = -1
        self._goal: int | None = None
        self._reached = False
        self._broken: str | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.freshness = Freshness(ask_end=reader.end_offset, position=lambda: self._position, clock=clock)

    @property
    def snapshot(self) -> S:
        """The newest snapshot: whole commits only. Hold it as long as you like, it never changes."""
        return self._snapshot

    @property
    def seq(self) -> int:
        """The newest commit in the snapshot; 0 for none."""
        return self._fold.seq

    @property
    def position(self) -> int:
        """The offset up to which everything is in the snapshot; -1 before the start."""
        return self._position

    @property
    def ready(self) -> bool:
        """Whether everything that was there at the start is in the snapshot and nothing made it untrustworthy."""
        return self.reason is None

    @property
    def reason(self) -> str | None:
        """Why it is not ready, safe to show; None when it is."""
        if self._broken or self._fold.keyless:
            return self._broken or self._fold.keyless
        if not self._reached:
            return self._reader.trouble or f"{self._reader.topic}: reading up to the end seen at start"
        return None

    async def run(self) -> None:
        """Follow the topic for ever; cancel to stop. Returns when the topic lost its order, never ready again."""
        asking = asyncio.create_task(self.freshness.run())
        try:
            await self._follow()
        except OrderLost as error:
            self._give_up(error.detail)
        except Exception as error:
            self._give_up(f"{self._reader.topic}: the projection stopped: {type(error).__name__}")
            raise
        finally:
            asking.cancel()
            try:
                await asyncio.wait({asking})
            # Cancelled once more while it waits: the connection would stay open behind us.
            finally:
                await self._reader.close()

    async def wait_for(self, seq: int, *, timeout_s: float) -> bool:
        """Wait until commit `seq` is in the snapshot; False when it is not after `timeout_s`."""
        if self.seq >= seq:
            return True
        entry = (seq, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await entry[1]
        except TimeoutError:
            return False
        else:
            return True
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    async def _follow(self) -> None:
        async for read in self._reader:
            match read:
                case Batch():
                    await self._take(read)
                case Restarted(reason):
                    self._start_over(reason)

    async def _take(self, batch: Batch) -> None:
        if self._goal is None:
            self._goal = await self._end_at_start(batch)
        bulk = not self._reached and len(batch.messages) >= BULK_MESSAGES
        with collector_aside() if bulk else nullcontext():
            changes = self._fold.feed(batch.messages, at_end=batch.at_end)
            self._snapshot = self._applied(self._snapshot, changes)
        self._position = self._fold.applied_position(batch.position)
        if not self._reached and self._position >= self._goal:
            self._reached = True
            log.info("projection-ready", topic=self._reader.topic, seq=self.seq, position=self._position)
        self._wake()

    async def _end_at_start(self, batch: Batch) -> int:
        while True:
            try:
                async with asyncio.timeout(2):
                    return await self._reader.end_offset()
            except OrderLost:
                raise
            except Exception as error:  # noqa: BLE001 - without an answer there is no goal, so ask again
                log.warning("end-unknown", topic=self._reader.topic, at=batch.position, error=cut(error))
                await asyncio.sleep(0.1)

    def _applied(self, snapshot: S, changes: Iterable[Change]) -> S:
        for change in changes:
            try:
                snapshot = self._apply(snapshot, change)
            except Exception as error:
                if not isinstance(change, Upserted):
                    raise
                self._alert(Alert(self._reader.topic, change.record.key, -1, f"unusable: {type(error).__name__}"))
                snapshot = self._apply(snapshot, self._fold.remove_unreadable(change.record.key, change.record.payload))
        return snapshot

    def _start_over(self, reason: str) -> None:
        log.error("projection-restarted", topic=self._reader.topic, reason=reason)
        self._snapshot = self._empty
        self._fold = self._new_fold()
        self._position, self._goal, self._reached = -1, None, False
        self.freshness.reset()

    def _give_up(self, reason: str) -> None:
        self._broken = reason
        self.freshness.reset()
        log.error("projection-stopped", topic=self._reader.topic, reason=reason)

    def _new_fold(self) -> Fold:
        return Fold(self._known, self._alert)

    def _alert(self, alert: Alert) -> None:
        log.error("record-unreadable", topic=alert.topic, key=alert.key, offset=alert.offset, reason=alert.reason)
        if self._tell is not None:
            self._tell(alert)

    def _wake(self) -> None:
        if not self._waiting:
            return
        for seq, future in self._waiting:
            if seq <= self.seq and not future.done():
                future.set_result(None)
