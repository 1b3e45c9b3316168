"""Receipts of a replica: what it leaves behind when it is stopped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from aiokafka.errors import KafkaConnectionError

from services.resolver.receipts import Receipts
from tests.waiting import until


@dataclass(slots=True)
class Unreachable:
    """A producer whose broker is away."""

    starts: int = 0
    stopped: bool = False
    sent: list[str] = field(default_factory=list)

    async def start(self) -> None:
        """Fail to connect."""
        self.starts += 1
        raise KafkaConnectionError

    async def stop(self) -> None:
        """Disconnect."""
        self.stopped = True

    async def send_and_wait(self, topic: str, *_: Any, **__: Any) -> None:
        """Nobody is there."""
        self.sent.append(topic)


async def test_a_replica_that_is_stopped_while_the_broker_is_away_lets_go_of_its_producer() -> None:
    producer = Unreachable()
    receipts = Receipts(cast("Any", None), lambda: cast("Any", producer), "resolver-1", heartbeat_s=1.0, pause_s=0.01)
    running = asyncio.create_task(receipts.run())
    await until(lambda: producer.starts > 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert producer.stopped
    assert producer.sent == [], "nobody ever heard of this run, so it says no goodbye"
