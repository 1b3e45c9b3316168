"""How far this replica has come, told to whoever waits for convergence: at once when it moves, and every second.

A receipt may say that a commit is applied as soon as it is in the picture: every answer that is sealed afterwards is
decided on that picture, also one whose request came before.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from services.resolver.domain.snapshot import Floor
from services.resolver.state import ProjectedKnowledge
from shared.bus.cloudevents import encode
from shared.bus.connection import connect, disconnect, publish
from shared.errors import Unavailable
from shared.events.receipts import ResolverReceipt

_log = structlog.get_logger(__name__)

DEADLINE_S: Final = 1.0
"""For one receipt: the next one says everything again."""


@dataclass(slots=True)
class Receipts:
    """The receipts of one run. Times in seconds."""

    knowledge: ProjectedKnowledge
    new_producer: Callable[[], AIOKafkaProducer]
    replica_id: str
    heartbeat_s: float
    pause_s: float
    run_id: str = field(default_factory=lambda: f"run/{uuid.uuid4().hex}")

    async def run(self) -> None:
        """Tell for ever; when cancelled, say goodbye."""
        producer = self.new_producer()
        try:
            await connect(producer, what="receipts")
            await self._tell(producer)
        finally:
            await disconnect(producer)

    async def _tell(self, producer: AIOKafkaProducer) -> None:
        try:
            while True:
                said = await self._say(producer, stopping=False)
                # Everything that comes within the pause is one receipt.
                await asyncio.sleep(self.pause_s)
                await self.knowledge.moved(said, within_s=self.heartbeat_s)
        finally:
            # Convergence then need not wait for our bound: whoever stopped answers nobody.
            await self._say(producer, stopping=True)

    async def _say(self, producer: AIOKafkaProducer, *, stopping: bool) -> Floor:
        receipt = self._receipt(stopping=stopping)
        message = encode(receipt, key=receipt.replica_id, source="keyfob/resolver", event_id=str(uuid.uuid4()))
        try:
            # Not repeated: receipts are cumulative, and the newest says everything that a lost one said.
            await publish(producer, message, deadline_s=DEADLINE_S)
        except Unavailable:
            _log.warning("receipt not published", stopping=stopping)
        return Floor(receipt.policy_seq, receipt.catalog_seq)

    def _receipt(self, *, stopping: bool) -> ResolverReceipt:
        floor = self.knowledge.snapshot().floor
        return ResolverReceipt(
            replica_id=self.replica_id,
            run=self.run_id,
            policy_seq=floor.policy,
            catalog_seq=floor.catalog,
            fresh=self.knowledge.stale() is None,
            stopping=stopping,
            at=datetime.now(UTC),
        )
