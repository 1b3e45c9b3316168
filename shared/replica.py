"""The life of a replica that consumes: database, topics, its own preparation, messages; and the same way back.

What is away is waited for in the background, so that the process answers from its first moment and says what for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faststream.kafka import KafkaBroker
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.bus.connection import KafkaSettings, connect
from shared.bus.effects import Consumption
from shared.database import migrate
from shared.health import Check, Readiness
from shared.serving import Background
from shared.topics import DEAD_LETTERS, TOPICS, Topic
from shared.wiring import Tell, topics_ready, until_done


@dataclass(slots=True, kw_only=True)
class Replica:
    """One replica, put together but not started; `running` is the lifespan of its application.

    `made` and `read` name topics: those that it writes, dead letters included, and those whose writers make them.
    `prepare` runs once they are there, and returns when the first message may be taken. `close` is for what it
    connected: called when nothing works with it any more.
    """

    kafka: KafkaSettings
    replication: int
    engine: AsyncEngine
    schema: str
    migrations: Path
    made: tuple[str, ...]
    read: tuple[str, ...]
    broker: KafkaBroker
    consumptions: tuple[Consumption, ...]
    background: Background
    prepare: Callable[[Tell], Coroutine[Any, Any, None]]
    close: tuple[Callable[[], Awaitable[object]], ...] = ()
    readiness: Readiness = field(default_factory=Readiness)
    _waiting: str | None = "starting"

    def __post_init__(self) -> None:
        self.readiness.add("start", lambda: self._waiting)
        for consumption in self.consumptions:
            self.readiness.add(consumption.topic, _progress_of(consumption))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start in the background, and stop everything in the opposite order."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.dispose)
            for close in self.close:
                stack.push_async_callback(close)
            stack.push_async_callback(self.broker.stop)
            stack.push_async_callback(self.background.stop)
            self.background.start("start", self._start)
            yield

    async def _start(self) -> None:
        await until_done(self._migrate, what="database", tell=self._tell)
        made, read = _topics(self.made), _topics(self.read)
        await topics_ready(self.kafka, made=made, read=read, replication=self.replication, tell=self._tell)
        await self.prepare(self._tell)
        # Last: from the first message on, everything that a handler leans on must be there.
        await connect(self.broker, what="events")
        for consumption in self.consumptions:
            self.background.start(f"watch {consumption.topic}", consumption.watch)
        self._waiting = None

    async def _migrate(self) -> None:
        await migrate(self.engine, scripts=self.migrations, schema=self.schema)

    def _tell(self, reason: str) -> None:
        self._waiting = reason


def _progress_of(consumption: Consumption) -> Check:
    return lambda: consumption.reason


def _topics(names: tuple[str, ...]) -> list[Topic]:
    table = {topic.name: topic for topic in (*TOPICS, *DEAD_LETTERS)}
    return [table[name] for name in names]
