"""The second listener of a replica with what it needs of its own: the feed of notices and a way to `receipts`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer

from services.resolver.callers import Instances
from services.resolver.https_only.feed import READ_BACK, NoticeFeed
from services.resolver.https_only.inbox import Inbox
from services.resolver.https_only.routes import Door, https_only
from services.resolver.https_only.streams import Streams
from services.resolver.resolution import Resolver
from services.resolver.state import projected
from services.resolver.trust import Trust
from shared import topics
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings, connect, disconnect, publish
from shared.bus.whole_topic import FromEnd, WholeTopicReader
from shared.config import Misconfigured
from shared.crypto.signing import SigningKey, VerifyKey
from shared.health import Check, Readiness
from shared.mutual_tls import MutualListener, MutualTls
from shared.serving import Background
from shared.wiring import topics_ready

PUBLISH_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class HttpsOnly:
    """Started with its replica, and stopped before what it answers from."""

    kafka: KafkaSettings
    feed: NoticeFeed
    listener: MutualListener
    producer: AIOKafkaProducer

    def begin(self, background: Background) -> None:
        """Listen, hear notices and pass receipts on, in the background."""
        background.start("notices", self._hear)
        background.start("https", self.listener.run)

    async def end(self) -> None:
        """Answer nothing any more: streams end first, or the others would wait for them."""
        self.feed.close()
        await self.listener.stop()

    async def _hear(self) -> None:
        read = tuple(topic for topic in topics.TOPICS if topic.name == topics.NOTICES)
        # Asking for a missing one would make some brokers invent it.
        await topics_ready(self.kafka, made=(), read=read, replication=1, tell=lambda _: None)
        try:
            await connect(self.producer, what="posted receipts")
            await self.feed.run()
        finally:
            await disconnect(self.producer)


def described() -> dict[str, Any]:
    """The description of the listener's API, without connecting anywhere."""
    key = SigningKey.generate()
    feed = NoticeFeed(WholeTopicReader(KafkaSettings(), topics.NOTICES), key.verify_key)

    async def never(_: object) -> Any:
        raise Misconfigured("This application only describes itself.")

    nothing = projected(KafkaSettings(), Trust({}), tick_bound_s=0.0)
    door = Door(
        knowledge=nothing,
        instances=Instances(Trust({})),
        resolve=never,
        streams=Streams(feed, time.monotonic),
        inbox=Inbox(feed, key, never),
    )
    return https_only(door, Readiness()).openapi()


def https_only_of(
    tls: MutualTls | None, resolver: Resolver, kafka: KafkaSettings, not_ready: Check, *, policy_key: str
) -> HttpsOnly | None:
    """The listener, not yet started; None where it is not set up."""
    if tls is None:
        return None
    # Not idempotent: a posted receipt may come twice, and a broker that forgot us would refuse all that follow.
    producer = kafka.repeating_producer()

    async def send(message: Message) -> None:
        await publish(producer, message, deadline_s=PUBLISH_WITHIN_S)

    reader = WholeTopicReader(kafka, topics.NOTICES, start=FromEnd(back=READ_BACK))
    feed = NoticeFeed(reader, VerifyKey.from_base64(policy_key))
    door = Door(
        knowledge=resolver.knowledge,
        instances=resolver.instances,
        resolve=resolver.resolve,
        streams=Streams(feed, time.monotonic),
        inbox=Inbox(feed, resolver.signing_key, send),
    )
    # Of its own: without notices, those who need none here are served all the same.
    readiness = Readiness({"bus": not_ready, "notices": lambda: feed.trouble})
    return HttpsOnly(kafka, feed, MutualListener(https_only(door, readiness), tls), producer)
