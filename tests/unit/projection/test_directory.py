"""The directory of instances: at its end exactly when it says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import cast

import pytest

from shared import topics
from shared.bus import whole_topic
from shared.bus.connection import KafkaSettings
from shared.crypto.signing import SigningKey
from shared.errors import Unavailable
from shared.events.policy import InstanceRecord
from shared.projection import directory as directory_module
from shared.projection.changes import Alert
from shared.projection.directory import InstanceDirectory
from tests.fakes.kafka_topic import FakeTopic
from tests.fakes.state_topic import committed
from tests.waiting import until


def instance(name: str, seq: int) -> InstanceRecord:
    return InstanceRecord(
        id=f"instance/{name}",
        seq=seq,
        revision=1,
        name=name,
        signing_key=SigningKey.generate().verify_key.to_base64(),
        sealing_key="x",
        sealing_certificate="x",
        allowed_servers=(),
        enrolled_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_topic, "POLL_S", 0.005)
    monkeypatch.setattr(whole_topic, "BACK_OFF_S", (0.001,))
    monkeypatch.setattr(directory_module, "LOOK_AGAIN_S", 0.002)


@pytest.fixture
def policy() -> FakeTopic:
    topic = FakeTopic(topics.POLICY)
    topic.append(committed(instance("a", 1)))
    return topic


@pytest.fixture
async def directory(policy: FakeTopic) -> AsyncIterator[InstanceDirectory]:
    directory = InstanceDirectory(cast("KafkaSettings", policy))
    task = asyncio.create_task(directory.run())
    yield directory
    task.cancel()
    await asyncio.wait({task})


async def test_it_holds_who_is_enrolled(directory: InstanceDirectory) -> None:
    await until(lambda: directory.reason is None)
    assert [known.name for known in directory.snapshot.all()] == ["a"]


async def test_caught_up_means_that_what_was_said_before_the_question_is_known(
    policy: FakeTopic, directory: InstanceDirectory
) -> None:
    await until(lambda: directory.reason is None)
    policy.append(committed(instance("b", 2)))
    await directory.caught_up()
    assert directory.snapshot.get("instance/b") is not None


async def test_a_broker_that_is_away_is_no_end(
    policy: FakeTopic, directory: InstanceDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: directory.reason is None)
    policy.away = True
    with pytest.raises(Unavailable):
        await directory.caught_up()


async def test_before_it_runs_it_knows_nothing_and_says_so(policy: FakeTopic) -> None:
    directory = InstanceDirectory(cast("KafkaSettings", policy))
    assert directory.reason is not None
    with pytest.raises(Unavailable):
        await directory.caught_up()


async def test_an_end_that_is_not_reached_in_time_is_not_reached(
    policy: FakeTopic, directory: InstanceDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: directory.reason is None)
    monkeypatch.setattr(directory_module, "ASK_WITHIN_S", 0.02)
    policy.fetches_left = 0
    policy.append(committed(instance("b", 2)))
    with pytest.raises(Unavailable, match="not read to its end: TimeoutError"):
        await directory.caught_up()


async def test_whoever_waits_for_a_change_hears_of_it(policy: FakeTopic, directory: InstanceDirectory) -> None:
    await until(lambda: directory.reason is None)
    waiting = asyncio.create_task(directory.moved())
    await asyncio.sleep(0)
    policy.append(committed(instance("b", 2)))
    await asyncio.wait_for(waiting, 0.9)
    assert directory.snapshot.get("instance/b") is not None


async def test_a_record_that_denied_somebody_is_told(policy: FakeTopic) -> None:
    alerts: list[Alert] = []
    directory = InstanceDirectory(cast("KafkaSettings", policy), on_alert=alerts.append)
    policy.append(committed(instance("b", 2).model_copy(update={"signing_key": "not a key"})))
    task = asyncio.create_task(directory.run())
    await until(lambda: alerts)
    task.cancel()
    await asyncio.wait({task})
    assert (alerts[0].key, alerts[0].topic) == ("instance/b", topics.POLICY)
    known = directory.snapshot.get("instance/b")
    assert known is None or not known.active
