"""A replica that was killed, or whose broker was restarted, goes on at once: nobody has to be waited for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.dev.platform import Broker, Process, plain_environment
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings, connect, disconnect, ensure_topics, publish
from tests.integration.bus.conftest import ordered
from tests.waiting import until

HEARS = Path(__file__).parents[2] / "fakes" / "group_member.py"


@asynccontextmanager
async def member(kafka: KafkaSettings, topic: str, heard: Path) -> AsyncIterator[Process]:
    """A process that consumes `topic` as the same member of the same group each time."""
    process = Process(
        "member",
        (sys.executable, str(HEARS), kafka.bootstrap, topic, str(heard)),
        env=plain_environment(PYTHONPATH=str(HEARS.parents[2])),
        log=heard.with_suffix(".log"),
    )
    process.start()
    try:
        yield process
    finally:
        await process.stop()


async def test_a_killed_member_takes_up_its_work_before_its_session_would_have_run_out(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    topic, heard = ordered("tests-member"), tmp_path / "heard"
    await ensure_topics(kafka, [topic])
    heard.touch()
    producer = kafka.producer()
    await connect(producer, what="test")
    try:
        for number in range(3):
            async with member(kafka, topic.name, heard) as process:
                await publish(producer, Message(topic=topic.name, key="k", value=b"%d" % number), deadline_s=10)
                await until(lambda number=number: heard.read_text().split()[number:], within=60, what=f"{number}")
                process.kill()
                await process.wait(10)
    finally:
        await disconnect(producer)
    assert set(heard.read_text().split()) == {"0", "1", "2"}


async def test_what_may_be_repeated_is_published_again_after_the_broker_was_restarted(own_broker: Broker) -> None:
    topic = ordered("tests-repeating")
    kafka = KafkaSettings(bootstrap=own_broker.bootstrap, client_id="tests")
    await ensure_topics(kafka, [topic])
    producer = kafka.repeating_producer()
    await connect(producer, what="test")
    try:
        for _ in range(3):
            await publish(producer, Message(topic=topic.name, key="k", value=b"before"), deadline_s=10)
        await own_broker.stop()
        away = asyncio.create_task(publish(producer, Message(topic=topic.name, key="k", value=b"x"), deadline_s=1))
        await asyncio.gather(away, return_exceptions=True)
        await own_broker.start()
        await publish(producer, Message(topic=topic.name, key="k", value=b"after"), deadline_s=30)
    finally:
        await disconnect(producer)
