"""The life of a replica: in which order it starts and stops, and that it says at each moment what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shared import replica as module
from shared import topics
from shared.bus.connection import KafkaSettings, TopicsUnsuitable
from shared.errors import Unavailable
from shared.replica import Replica
from shared.serving import Background
from shared.wiring import Tell
from tests.waiting import until


@dataclass
class Part:
    """Something that is started, watched or closed, and notes when."""

    name: str
    diary: list[str]
    topic: str = ""
    reason: str | None = None

    async def start(self) -> None:
        self.diary.append(f"{self.name} started")

    async def stop(self) -> None:
        self.diary.append(f"{self.name} stopped")

    async def dispose(self) -> None:
        self.diary.append(f"{self.name} disposed")

    async def watch(self) -> None:
        self.diary.append(f"{self.name} watched")
        await asyncio.Event().wait()


@dataclass
class Stage:
    """A replica on parts; `away` are errors that the database meets, one at each attempt."""

    diary: list[str] = field(default_factory=list)
    away: list[Exception] = field(default_factory=list)
    prepared: asyncio.Event = field(default_factory=asyncio.Event)
    background: Background = field(default_factory=Background)
    topics: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.changes = Part("changes", self.diary, topic=topics.VAULT_CHANGES)
        parts: dict[str, Any] = {
            "engine": Part("engine", self.diary),
            "broker": Part("broker", self.diary),
            "consumptions": (self.changes,),
        }
        self.replica = Replica(
            kafka=KafkaSettings(),
            replication=3,
            schema="keyfob_test",
            migrations=Path(),
            made=(topics.NOTICES, topics.dead(topics.VAULT_CHANGES)),
            read=(topics.VAULT_CHANGES,),
            background=self.background,
            prepare=self.prepare,
            close=(Part("producer", self.diary).stop,),
            **parts,
        )

    async def migrate(self, *_: object, schema: str, **__: object) -> None:
        if self.away:
            raise self.away.pop(0)
        self.diary.append(f"{schema} migrated")

    async def topics_ready(self, *_: object, made: Any, read: Any, replication: int, tell: Tell) -> None:
        tell("topics: being made")
        self.topics = [[one.name for one in made], [one.name for one in read]]
        self.diary.append(f"topics ready with {replication}")

    async def prepare(self, tell: Tell) -> None:
        tell("policy: not caught up")
        await self.prepared.wait()
        self.diary.append("prepared")

    def waits_for(self) -> str | None:
        return self.replica.readiness.reasons().get("start")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.replica.running():
            yield


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()
    monkeypatch.setattr(module, "migrate", made.migrate)
    monkeypatch.setattr(module, "topics_ready", made.topics_ready)
    monkeypatch.setattr("shared.wiring.RETRY_AFTER_S", 0.01)
    return made


async def test_messages_are_taken_only_when_everything_that_handlers_lean_on_is_there(stage: Stage) -> None:
    assert stage.waits_for() == "starting"
    async with stage.running():
        await until(lambda: stage.waits_for() == "policy: not caught up")
        assert stage.diary == ["keyfob_test migrated", "topics ready with 3"]
        stage.prepared.set()
        await until(lambda: stage.waits_for() is None)
        await until(lambda: "changes watched" in stage.diary)
    assert stage.diary[2:5] == ["prepared", "broker started", "changes watched"]


async def test_everything_stops_in_the_opposite_order(stage: Stage) -> None:
    stage.prepared.set()
    async with stage.running():
        await until(lambda: stage.waits_for() is None)
    assert stage.diary[-3:] == ["broker stopped", "producer stopped", "engine disposed"]


async def test_what_was_never_started_is_closed_all_the_same(stage: Stage) -> None:
    async with stage.running():
        pass
    assert stage.diary[-3:] == ["broker stopped", "producer stopped", "engine disposed"]
    assert "broker started" not in stage.diary


async def test_a_failure_while_serving_closes_everything(stage: Stage) -> None:
    with pytest.raises(ZeroDivisionError):
        async with stage.running():
            raise ZeroDivisionError
    assert stage.diary[-1] == "engine disposed"


@pytest.mark.parametrize("error", [OSError("connection refused"), Unavailable("away"), TopicsUnsuitable("missing")])
async def test_what_is_away_is_waited_for_and_told(stage: Stage, error: Exception) -> None:
    stage.away = [error] * 3
    stage.prepared.set()
    async with stage.running():
        await until(lambda: (stage.waits_for() or "").startswith("database: "))
        await until(lambda: stage.waits_for() is None)
    assert not stage.background.failed.is_set()


async def test_what_is_wrong_and_not_away_ends_the_process(stage: Stage) -> None:
    stage.away = [RuntimeError("a migration that is broken")]
    async with stage.running():
        await asyncio.wait_for(stage.background.failed.wait(), 1)
    assert stage.waits_for() is not None, "and until then it is not ready"


async def test_a_consumer_that_is_stuck_is_a_reason_of_its_own(stage: Stage) -> None:
    assert topics.VAULT_CHANGES not in stage.replica.readiness.reasons()
    stage.changes.reason = "position does not move"
    assert stage.replica.readiness.reasons()[topics.VAULT_CHANGES] == "position does not move"


async def test_its_own_topics_are_made_and_those_of_others_awaited(stage: Stage) -> None:
    async with stage.running():
        await until(lambda: stage.topics)
    assert stage.topics == [[topics.NOTICES, topics.dead(topics.VAULT_CHANGES)], [topics.VAULT_CHANGES]]


def test_a_topic_that_nobody_declared_is_a_mistake_that_shows() -> None:
    with pytest.raises(KeyError):
        module._topics(("keyfob.nothing.v1",))
