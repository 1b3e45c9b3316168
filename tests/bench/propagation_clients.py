"""One process with some of the fifty gateway clients of the propagation bench: only the client part of the gateway.

Started by `tests.bench.propagation` with a JSON file. Each client enrols, resolves a few servers with a field for
each rotation to come, and holds the leases. When one is fenced it wipes the value and says so, and the moment is kept.
Beside each client runs a plain consumer of a topic of the bench, for the floor. Everything is printed as one JSON
document when standard input closes. Moments are nanoseconds of `CLOCK_MONOTONIC`, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvloop

from services.gateway.client.enrolment import enrol
from services.gateway.client.fence import TickFence
from services.gateway.client.identity import Identity
from services.gateway.client.instance import Holding, Instance
from services.gateway.client.leases import Fenced
from services.gateway.client.ledger import Ledger
from services.gateway.client.posting import HttpPost
from services.gateway.client.receipts import ReceiptWriter
from services.gateway.client.resolving import Resolvers, Wanted
from shared import topics
from shared.bus.cloudevents import Message, parse
from shared.bus.connection import KafkaSettings, connect, disconnect, publish
from shared.bus.whole_topic import FromEnd, WholeTopicReader
from shared.crypto.secret import SecretBytes
from shared.events.receipts import GatewayReceipt
from tests.waiting import until

RESOLVE_WITHIN_S = 60.0


@dataclass(slots=True)
class Client:
    """One instance, and when it did what."""

    instance: Instance
    field_of: dict[str, str] = field(default_factory=dict)
    """Lease → field."""
    values: dict[str, SecretBytes] = field(default_factory=dict)
    dropped_ns: dict[str, int] = field(default_factory=dict)
    told_ns: dict[str, int] = field(default_factory=dict)
    floor_ns: dict[str, int] = field(default_factory=dict)

    def hold(self, holding: Holding) -> None:
        """Keep these values until they are fenced."""
        self.field_of |= {lease.id: name for name, lease in zip(holding.values, holding.leases, strict=True)}
        self.values |= holding.values

    def act(self, fenced: tuple[Fenced, ...]) -> None:
        """Wipe what was fenced, let go of it, and note when."""
        for one in fenced:
            self.values[self.field_of[one.lease.id]].wipe()
            self.instance.end((one.lease.id,), one.why)
        moment = time.monotonic_ns()
        self.dropped_ns |= {self.field_of[one.lease.id]: moment for one in fenced}

    def note_receipt(self, message: Message) -> None:
        """A receipt is durable; whoever reads it knows what is gone."""
        ended = parse(message.value, GatewayReceipt).ended
        moment = time.monotonic_ns()
        self.told_ns |= {self.field_of[one.lease_id]: moment for one in ended if one.lease_id in self.field_of}


async def open_client(config: dict[str, Any], name: str, post: HttpPost, kafka: KafkaSettings) -> Client:
    """Enrol, start, resolve."""
    directory = Path(config["directory"]) / name
    identity = await enrol(directory, policy_url=config["policy"], token=config["tokens"][name], name=name, post=post)
    client = await _start(identity, config, kafka, post)
    await until(lambda: client.instance.not_ready() is None, within=RESOLVE_WITHIN_S)
    for server in config["servers"]:
        client.hold(await client.instance.resolve(config["subject_token"], Wanted(server)))
    return client


async def _start(identity: Identity, config: dict[str, Any], kafka: KafkaSettings, post: HttpPost) -> Client:
    producer = kafka.producer()
    await connect(producer, what="receipts")
    made: list[Client] = []

    async def publish_receipt(message: Message) -> None:
        await publish(producer, message, deadline_s=5)
        made[0].note_receipt(message)

    ledger = Ledger()
    instance = Instance(
        identity,
        WholeTopicReader(kafka, topics.NOTICES, start=FromEnd()),
        Resolvers(config["resolvers"], identity, post, deadline_s=RESOLVE_WITHIN_S),
        ReceiptWriter(ledger, identity.instance_id, identity.keys.signing, publish_receipt),
        ledger,
        TickFence(),
    )
    client = Client(instance)
    made.append(client)
    instance.on_fenced = client.act
    await instance.start()
    _background(instance.run())
    return client


_tasks: set[asyncio.Task[None]] = set()


def _background(work: Any) -> None:
    task = asyncio.create_task(work)
    _tasks.add(task)


async def watch_floor(client: Client, kafka: KafkaSettings, topic: str) -> None:
    """One raw hop: when each message of the bench's own topic arrives here."""
    consumer = kafka.consumer(topic, auto_offset_reset="latest")
    await connect(consumer, what="floor")
    try:
        async for record in consumer:
            client.floor_ns[record.value.decode()] = time.monotonic_ns()
    finally:
        await disconnect(consumer)


async def main(config: dict[str, Any]) -> None:
    """Open all clients of this process, say so, and report at the end."""
    kafka = KafkaSettings(bootstrap=config["kafka"], client_id="bench")
    async with HttpPost() as post:
        clients = [await open_client(config, name, post, kafka) for name in config["names"]]
        for client in clients:
            _background(watch_floor(client, kafka, config["floor_topic"]))
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        report = [
            {"dropped": client.dropped_ns, "told": client.told_ns, "floor": client.floor_ns} for client in clients
        ]
        print(json.dumps(report), flush=True)
        for task in _tasks:
            task.cancel()
        await asyncio.gather(*_tasks, return_exceptions=True)


if __name__ == "__main__":
    # Standard output is for the report.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    uvloop.run(main(json.loads(Path(sys.argv[1]).read_text())))
