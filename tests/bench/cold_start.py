"""How long a resolver takes from its start to `ready` with 100,000 grants in the compacted topic, and its memory.

A process of its own reads the topics from the broker; the records are signed by one key and belong to 2,000 profiles
and 20,000 references. Memory is what the process holds beyond one that starts on empty topics.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from services.dev.platform import Process, broker_from_env
from services.dev.platform.supervision import until_ready
from shared import topics
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings, ensure_topics
from tests.bench.resolve import keep_ticking, resolver_process
from tests.fakes.estate import Estate, publish_all

GRANTS: Final = 100_000
PROFILES: Final = 2_000
REFERENCES: Final = 20_000
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds until ready, and bytes of resident memory then."""

    seconds: float
    memory: int


def written(estate: Estate, grants: int) -> Iterator[Message]:
    """The records of a large installation, a few thousand at a time in memory."""
    estate.idp()
    estate.server()
    estate.source()
    for number in range(min(PROFILES, grants)):
        estate.profile(f"profile-{number:05}", group=f"group-{number:05}")
    for number in range(min(REFERENCES, grants)):
        estate.reference(f"team-{number:05}/database/dsn")
    for number in range(grants):
        profile = f"profile-{number % PROFILES:05}"
        reference = f"team-{number * 7 % REFERENCES:05}/database/dsn"
        estate.grant(profile, reference, id_=f"grant/{number:032x}")
        if len(estate.messages) >= 5_000:
            yield from estate.messages
            estate.messages.clear()
    yield from estate.messages
    estate.messages.clear()


async def start_once(directory: Path, bootstrap: str, estate: Estate) -> Start:
    """Start a resolver on what is in the topics, wait until it is ready, stop it."""
    resolver, url, _ = resolver_process(directory, bootstrap, estate)
    begun = time.perf_counter()
    resolver.start()
    try:
        await until_ready(resolver, f"{url}/readyz", within_s=120)
        seconds = time.perf_counter() - begun
        return Start(seconds, _memory(resolver))
    finally:
        await resolver.stop()


def _memory(process: Process) -> int:
    assert process.pid is not None
    own = psutil.Process(process.pid)
    return sum(one.memory_info().rss for one in (own, *own.children(recursive=True)))


async def measured(grants: int) -> Start:
    """A start on a broker of its own with this many grants."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-cold-"))
    broker = broker_from_env(directory / "broker", logs=directory / "logs")
    await broker.start()
    kafka = KafkaSettings(bootstrap=broker.bootstrap, client_id="bench")
    producer: AIOKafkaProducer = kafka.producer()
    try:
        await ensure_topics(kafka, topics.TOPICS, replication=1)
        await producer.start()
        estate = Estate()
        batch: list[Message] = []
        for message in written(estate, grants):
            batch.append(message)
            if len(batch) == 1_000:
                await publish_all(producer, batch)
                batch.clear()
        await publish_all(producer, batch)
        ticking = asyncio.create_task(keep_ticking(estate, producer))
        try:
            return await start_once(directory, broker.bootstrap, estate)
        finally:
            ticking.cancel()
    finally:
        await producer.stop()
        await broker.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def run() -> dict[str, float]:
    """Measure an empty start and a large one."""
    empty, large = await measured(0), await measured(GRANTS)
    table = Table("records", "seconds to ready", "memory MiB", title="A resolver's start")
    for name, start in (("none", empty), (f"{GRANTS:,} grants", large)):
        table.add_row(name, f"{start.seconds:.2f}", f"{start.memory / MIB:.0f}")
    Console().print(table)
    return {
        "resolver_start_empty_s": empty.seconds,
        "resolver_cold_start_s": large.seconds,
        "resolver_cold_start_memory_mib": large.memory / MIB,
        "resolver_memory_per_grant_bytes": (large.memory - empty.memory) / GRANTS,
    }
