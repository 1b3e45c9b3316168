"""How Keyfob connects to Kafka, with defaults that lose nothing and repeat nothing.

aiokafka's own defaults are at-most-once (auto-commit, `latest`, no idempotence); nobody else in the code names
these settings. A wrong password looks to a client like a broker that is down, so errors here say both.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from shared.bus.cloudevents import Message
from shared.bus.consumer import MendingConsumer
from shared.bus.producer import EndingProducer
from shared.errors import KeyfobError, Unavailable, cut
from shared.topics import Topic

log = structlog.get_logger()

TOPIC_EXISTS = 36
BATCH_BYTES = 256 * 1024
"""Bytes of one produced batch per partition."""

FETCH_BYTES = 4 * 1024 * 1024
"""Bytes asked for from one partition at a time."""

RETRY_AFTER_S = 0.5
STOP_WITHIN_S = 3.0


class TopicsUnsuitable(KeyfobError):
    """Raised when a topic is missing, not permitted, or has partitions that would break its order."""

    kind: ClassVar[str] = "topics-unsuitable"
    title: ClassVar[str] = "A topic is not as it must be"


class KafkaSettings(BaseModel):
    """Where the broker is and who we are to it. A field left out means a development broker on loopback."""

    model_config = ConfigDict(frozen=True)

    bootstrap: str = Field(default="127.0.0.1:9092", description="host:port, comma-separated")
    client_id: str = Field(default="keyfob", description="name shown in the broker's logs")
    member: str | None = Field(default=None, description="this replica's lasting name in consumer groups (KIP-345)")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ca_file: Path | None = Field(default=None, description="PEM of the broker's CA; the system's store otherwise")

    def client(self) -> dict[str, Any]:
        """Arguments that every aiokafka client takes."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
            "request_timeout_ms": 10_000,
            "retry_backoff_ms": 100,
            "metadata_max_age_ms": 30_000,
        }
        # A new context for each client: certificates that were replaced are read by the next one.
        if self.security_protocol.endswith("SSL"):
            arguments["ssl_context"] = self.ssl_context()
        if self.security_protocol.startswith("SASL"):
            password = self.sasl_password.get_secret_value() if self.sasl_password else None
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": password,
            }
        return arguments

    def ssl_context(self) -> ssl.SSLContext:
        """A verifying context for the broker's certificate."""
        return ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))

    def producer(self, **more: Any) -> AIOKafkaProducer:
        """An idempotent producer, `acks=all`, not started."""
        # No lingering: a resolve waits for its record, and what comes while a batch is on its way is grouped anyway.
        safe = {"enable_idempotence": True, "acks": "all", "linger_ms": 0, "max_batch_size": BATCH_BYTES}
        return EndingProducer(**(self.client() | safe | more))

    def repeating_producer(self) -> AIOKafkaProducer:
        """A producer for messages that change nothing when they come twice (notices, ticks, receipts), not started.

        `acks=all` and in order, but not idempotent: a broker that has lost what it knew about an idempotent producer
        refuses everything that it sends from then on (OutOfOrderSequenceNumber). The embedded one does with a restart.
        """
        return self.producer(enable_idempotence=False)

    def consumer(self, *topics: str, **more: Any) -> AIOKafkaConsumer:
        """A consumer of committed messages that never commits by itself, not started."""
        return MendingConsumer(*topics, **(self.client() | CONSUMER_DEFAULTS | more))


CONSUMER_DEFAULTS: dict[str, Any] = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "max_partition_fetch_bytes": FETCH_BYTES,
}


class Client(Protocol):
    """What producers and consumers have in common."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""


async def connect(client: Client, *, what: str, retry_after_s: float = RETRY_AFTER_S) -> None:
    """Start a producer or consumer, trying until the broker answers; cancel it to give up."""
    while True:
        try:
            await client.start()
        except (KafkaError, OSError) as error:
            log.warning("kafka-unreachable", what=what, hint="broker down, or wrong credentials", error=cut(error))
            await asyncio.sleep(retry_after_s)
        else:
            return


async def disconnect(client: Client, *, within_s: float = STOP_WITHIN_S) -> None:
    """Stop a producer or consumer, without waiting for ever: a producer sends what is left, and the broker may be away.

    Whatever goes wrong, nothing is raised. What is given up sends nothing more, and ends within as long again.
    """
    # In a task of its own: aiokafka's consumer cancels tasks that it then awaits, and so raises CancelledError itself.
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.wait({stopping}, timeout=within_s)
    finally:
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=within_s)
    if stopping.done() and not stopping.cancelled() and (error := stopping.exception()):
        log.debug("kafka-disconnected-with-an-error", error=cut(error))


async def publish(producer: AIOKafkaProducer, message: Message, *, deadline_s: float) -> tuple[int, int]:
    """Publish and wait for all in-sync replicas; returns (partition, offset).

    Raises `Unavailable` after `deadline_s` or when the broker refuses. After a timeout the message may still
    arrive: its effect must be idempotent, or the caller must void it.
    """
    key = None if message.key is None else message.key.encode()
    try:
        async with asyncio.timeout(deadline_s):
            # A deadline of our own: an idempotent producer waits for as long as the broker is away.
            done = await producer.send_and_wait(message.topic, message.value, key, headers=list(message.headers))
    except TimeoutError:
        raise Unavailable(f"the bus did not acknowledge within {deadline_s:g} s") from None
    except (KafkaError, OSError) as error:
        raise Unavailable(f"the bus refused a message: {type(error).__name__}") from error
    return done.partition, done.offset


async def ensure_topics(kafka: KafkaSettings, topics: Iterable[Topic], *, replication: int = 1) -> None:
    """Create what is missing; safe to repeat and to run concurrently.

    Raises `TopicsUnsuitable` when a topic can't be made or an ordered one has more than one partition, and
    `Unavailable` when the broker can't be asked.
    """
    wanted = tuple(topics)
    admin = AIOKafkaAdminClient(**kafka.client())
    try:
        await admin.start()
        new = [
            NewTopic(topic.name, topic.partitions, replication, topic_configs=topic.config(replication))
            for topic in wanted
        ]
        answer = await admin.create_topics(new, timeout_ms=10_000)
        for name, code, *words in answer.topic_errors:
            # Another replica may be making the same ones right now: that they exist is as good.
            if code not in (0, TOPIC_EXISTS):
                raise TopicsUnsuitable(f"{name}: error {code} {cut(words[0] if words else '')}")
        await _verify(admin, wanted)
    except (KafkaError, OSError) as error:
        raise Unavailable(f"broker down, or wrong credentials: {cut(error)}") from error
    finally:
        await admin.close()


async def topics_present(kafka: KafkaSettings, topics: Iterable[Topic]) -> None:
    """Check that topics which others make are there and fit.

    Raises `TopicsUnsuitable` when one is missing or has lost its order, `Unavailable` when the broker can't be asked.
    """
    admin = AIOKafkaAdminClient(**kafka.client())
    try:
        await admin.start()
        await _verify(admin, tuple(topics))
    except (KafkaError, OSError) as error:
        raise Unavailable(f"broker down, or wrong credentials: {cut(error)}") from error
    finally:
        await admin.close()


async def _verify(admin: AIOKafkaAdminClient, wanted: tuple[Topic, ...]) -> None:
    # A topic that was just made takes a moment to appear in the metadata.
    for _ in range(20):
        found = {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics(None)}
        if all(found.get(topic.name) for topic in wanted):
            break
        await asyncio.sleep(0.1)
    for topic in wanted:
        partitions = found.get(topic.name, 0)
        if not partitions:
            raise TopicsUnsuitable(f"{topic.name}: missing, or we may not describe it")
        if topic.ordered and partitions != 1:
            raise TopicsUnsuitable(f"{topic.name}: {partitions} partitions, its order needs exactly 1")
