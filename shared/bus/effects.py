"""Consumers of effects: a handler returns an outcome, and this module does what it says.

    Ack             done: the position moves on
    Retry(after_s)  not yet: the same message again, a bounded number of times, then as Dead
    Dead(reason)    never: to `<topic>.dead` with origin and reason, then the next message

A handler that raises because something of ours is away (`shared.bus.outages`) is not counted: the message is not to
blame, and is tried until the outage ends. Any other exception counts as a Retry.

Serial per partition, parallel across members of the group; at least once: position moves only after the outcome was
carried out, so handlers are idempotent by natural key. Retry state is in memory: a killed consumer starts counting
anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512
from opentelemetry.trace import SpanKind

from shared.bus.cloudevents import Message, Unreadable, decode, received
from shared.bus.connection import CONSUMER_DEFAULTS, KafkaSettings
from shared.bus.consumer import MendingConsumer
from shared.bus.outages import is_outage
from shared.errors import cut
from shared.events.contract import Contract
from shared.telemetry import span
from shared.topics import dead

log = structlog.get_logger()

OUTAGE_DELAYS_S = (0.1, 0.2, 0.5, 1.0, 2.0)
PUBLISH_WITHIN_S = 5.0
IDLE_WAIT_MS = 1_000
GATHER_BYTES = 64 * 1024
"""So much is worth a fetch of its own, whoever gathers."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Done."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, not before `after_s` seconds."""

    after_s: float = 0.0
    reason: str = "retry"


@dataclass(frozen=True, slots=True)
class Dead:
    """Nothing will come of this message; `reason` is safe to store."""

    reason: str


Outcome = Ack | Retry | Dead
Handler = Callable[[Message], Awaitable[Outcome]]
BatchHandler = Callable[[tuple[Message, ...]], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Patience:
    """The delays in seconds between attempts of one message; when they are used up, it is dead."""

    delays_s: tuple[float, ...] = (0.1, 0.5, 2.0, 8.0)


class EffectsConsumer(MendingConsumer):
    """Waits for the first message itself: FastStream sleeps after each empty batch, and what comes meanwhile waits."""

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None) -> Any:
        """As aiokafka's, but an answer without messages takes at least `IDLE_WAIT_MS`."""
        return await super().getmany(*partitions, timeout_ms=max(timeout_ms, IDLE_WAIT_MS), max_records=max_records)


class EffectsBroker(KafkaBroker):
    """FastStream's broker, consuming with a consumer that bears with the embedded broker."""

    member: str | None = None
    """Who its consumers are after a restart too: see `KafkaSettings.member`."""

    async def _connect(self) -> Callable[..., Any]:
        original: Any = await super()._connect()
        self.config.broker_config.builder = mending = partial(EffectsConsumer, **original.keywords)
        return mending


def effects_broker(kafka: KafkaSettings) -> EffectsBroker:
    """The FastStream broker of a service, with the safe defaults; subscribe with `consume`."""
    broker = EffectsBroker(
        kafka.bootstrap.split(","),
        client_id=kafka.client_id,
        security=_security(kafka),
        enable_idempotence=False,  # for dead letters: as `KafkaSettings.repeating_producer`
        acks="all",
        request_timeout_ms=10_000,
        metadata_max_age_ms=30_000,
        allow_auto_create_topics=False,
        graceful_timeout=10.0,
        apply_types=False,
        logger=None,
    )
    broker.member = kafka.member
    return broker


def by_type(routes: Mapping[type[Contract], Callable[[Any, Message], Awaitable[Outcome]]]) -> Handler:
    """A handler that decodes and calls `route(contract, message)`; other types are dead, to be replayed later."""
    models = {model.TYPE: (model, route) for model, route in routes.items()}

    async def dispatch(message: Message) -> Outcome:
        found = models.get(message.type or "")
        if found is None:
            return Dead(f"unknown type {cut(message.type)}")
        model, route = found
        return await route(decode(message, model), message)

    return dispatch


def consume(
    broker: EffectsBroker,
    *,
    topic: str,
    group: str,
    handler: Handler,
    patience: Patience = Patience(),
) -> Consumption:
    """Subscribe a handler of single messages; call before the broker starts."""

    async def one(messages: tuple[Message, ...]) -> Outcome:
        return await handler(messages[0])

    return Consumption(broker, topic=topic, group=group, handler=one, patience=patience)


def consume_batches(
    broker: EffectsBroker,
    *,
    topic: str,
    group: str,
    handler: BatchHandler,
    patience: Patience = Patience(),
    max_messages: int = 500,
    gather_ms: int | None = None,
) -> Consumption:
    """Subscribe a handler of many messages at once. Unless it acks, each message is tried again by itself.

    `gather_ms`: for what nobody waits for, the broker holds a fetch back so long, unless it is large by then.
    """
    batching = Batching(max_messages, gather_ms)
    return Consumption(broker, topic=topic, group=group, handler=handler, patience=patience, batching=batching)


@dataclass(frozen=True, slots=True)
class Batching:
    """How many messages make a batch, and how long the broker may gather them."""

    max_messages: int
    gather_ms: int | None

    def arguments(self) -> dict[str, Any]:
        """As FastStream's subscriber takes them."""
        batched = {"batch": True, "batch_timeout_ms": 1, "max_records": self.max_messages}
        if self.gather_ms is None:
            return batched
        return batched | {"fetch_min_bytes": GATHER_BYTES, "fetch_max_wait_ms": self.gather_ms}


class Consumption:
    """One subscription at work: settles messages, and knows whether it makes progress."""

    def __init__(
        self,
        broker: EffectsBroker,
        *,
        topic: str,
        group: str,
        handler: BatchHandler,
        patience: Patience,
        batching: Batching | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.topic = topic
        self.group = group
        self.settled = 0
        self.buried = 0
        self.liveness = Liveness(clock=clock)
        self._broker = broker
        self._handler = handler
        self._patience = patience
        self._trouble: str | None = None
        self._subscriber: Any = broker.subscriber(
            topic,
            group_id=group,
            # A group may read several topics: each of its consumers is a member of its own.
            group_instance_id=f"{broker.member}-{topic}" if broker.member else None,
            ack_policy=AckPolicy.MANUAL,
            parser=_parser,
            decoder=_decoder,
            max_poll_interval_ms=3_600_000,  # a handler may wait out an outage; `liveness` finds the stuck ones
            rebalance_timeout_ms=30_000,
            heartbeat_interval_ms=1_000,  # only at a heartbeat do members hear that another one came or went
            **(batching.arguments() if batching else {}),
            **{name: CONSUMER_DEFAULTS[name] for name in ("isolation_level", "auto_offset_reset")},
        )
        self._subscriber(self._on_batch if batching else self._on_record)

    @property
    def reason(self) -> str | None:
        """Why this consumer is not live, safe to show; None when its position moves."""
        if self.liveness.stuck:
            return f"{self.topic} ({self.group}): {self._trouble or 'position does not move'}"
        return None

    async def watch(self, *, every_s: float = 5.0) -> None:
        """Compare position and end for ever; run it as a task beside the broker."""
        while True:
            consumer = self._subscriber.consumer
            if consumer is not None:
                await self.liveness.observe(consumer)
            await asyncio.sleep(every_s)

    async def _on_record(self, record: ConsumerRecord[Any, Any]) -> None:
        await self._on_batch((record,))

    async def _on_batch(self, records: tuple[ConsumerRecord[Any, Any], ...]) -> None:
        messages = tuple(map(received, records))
        self.liveness.began()
        try:
            if await self._settle_all(messages):
                await self._commit(messages)
        finally:
            self.liveness.ended()

    async def _settle_all(self, messages: tuple[Message, ...]) -> bool:
        if len(messages) > 1:
            outcome = await self._attempt(messages)
            if isinstance(outcome, Ack):
                self.settled += len(messages)
                return True
        for message in messages:
            if not await self._settle(message):
                return False
        return True

    async def _settle(self, message: Message) -> bool:
        """Carry one message to its end; False when the consumer is being stopped before that."""
        failures = outages = 0
        while self._subscriber.running:
            match await self._attempt((message,)):
                case Ack():
                    self.settled += 1
                    return True
                case Retry(after_s, _) if failures < len(self._patience.delays_s):
                    await asyncio.sleep(max(after_s, self._patience.delays_s[failures]))
                    failures += 1
                case Retry(_, reason) | Dead(reason):
                    return await self._bury(message, reason)
                case None:
                    await asyncio.sleep(OUTAGE_DELAYS_S[min(outages, len(OUTAGE_DELAYS_S) - 1)])
                    outages += 1
        return False

    async def _attempt(self, messages: tuple[Message, ...]) -> Outcome | None:
        """One call of the handler; None when something of ours is away."""
        parent = messages[0].header("traceparent")
        try:
            with span(f"consume {self.topic}", parent=parent, kind=SpanKind.CONSUMER, group=self.group):
                outcome = await self._handler(messages)
        except Unreadable as error:
            return Dead(error.detail)
        except Exception as error:
            self._trouble = f"{type(error).__name__}"
            log.warning("handler-failed", topic=self.topic, group=self.group, error=type(error).__name__, exc_info=True)
            return None if is_outage(error) else Retry(reason=type(error).__name__)
        self._trouble = None
        return outcome

    async def _bury(self, message: Message, reason: str) -> bool:
        outages = 0
        while self._subscriber.running:
            try:
                await self._publish_dead(message, reason)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("dead-letter-failed", topic=self.topic, error=cut(error))
                await asyncio.sleep(OUTAGE_DELAYS_S[min(outages, len(OUTAGE_DELAYS_S) - 1)])
                outages += 1
            else:
                self.buried += 1
                log.error("message-dead", topic=self.topic, group=self.group, offset=message.offset, reason=cut(reason))
                return True
        return False

    async def _publish_dead(self, message: Message, reason: str) -> None:
        origin = {
            "dead_topic": message.topic,
            "dead_partition": str(message.partition),
            "dead_offset": str(message.offset),
            "dead_group": self.group,
            "dead_reason": cut(reason),
        }
        kept = {name: value.decode(errors="replace") for name, value in message.headers}
        async with asyncio.timeout(PUBLISH_WITHIN_S):
            await self._broker.publish(
                message.value,
                topic=dead(message.topic),
                key=None if message.key is None else message.key.encode(),
                headers=kept | origin,
            )

    async def _commit(self, messages: tuple[Message, ...]) -> None:
        offsets: dict[TopicPartition, int] = {}
        for message in messages:
            offsets[TopicPartition(message.topic, message.partition)] = message.offset + 1
        consumer = self._subscriber.consumer
        if consumer is None:
            return
        try:
            await consumer.commit(offsets)
        except KafkaError as error:
            log.warning("position-not-kept", topic=self.topic, group=self.group, error=cut(error))


class Liveness:
    """A consumer lives when its position moves while the end does: stuck is work that nobody began for `bound_s`."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, bound_s: float = 60.0) -> None:
        self._clock = clock
        self._bound_s = bound_s
        self._began: float | None = None
        self._seen: dict[TopicPartition, tuple[int, float]] = {}
        self._behind: dict[TopicPartition, int] = {}

    @property
    def stuck(self) -> bool:
        """Whether one message takes longer than the bound, or messages lie there and none was begun."""
        now = self._clock()
        if self._began is not None and now - self._began > self._bound_s:
            return True
        idle = self._began is None
        return idle and any(now - self._seen[partition][1] > self._bound_s for partition in self._behind)

    @property
    def lag(self) -> int:
        """Messages not yet read, as of the last look."""
        return sum(self._behind.values())

    def began(self) -> None:
        """A message is being worked on."""
        self._began = self._clock()

    def ended(self) -> None:
        """It was settled."""
        self._began = None

    async def observe(self, consumer: Any) -> None:
        """Ask for positions and ends; without an answer the last ones stay."""
        partitions = consumer.assignment()
        try:
            async with asyncio.timeout(5):
                ends = await consumer.end_offsets(list(partitions))
                positions = {partition: await consumer.position(partition) for partition in partitions}
        except (KafkaError, OSError, TimeoutError):
            return
        for partition, position in positions.items():
            before = self._seen.get(partition)
            # Nothing lay there at the last look: what came since has waited for moments, however long all was quiet.
            if before is None or before[0] != position or partition not in self._behind:
                self._seen[partition] = (position, self._clock())
        lags = {partition: ends[partition] - position for partition, position in positions.items()}
        self._behind = {partition: lag for partition, lag in lags.items() if lag > 0}


async def _parser(raw: Any) -> KafkaAckableMessage:
    """FastStream's own parser fails on headers that are not UTF-8, and the message would be lost: this one can't."""
    return KafkaAckableMessage(raw_message=raw, body=b"", headers={}, consumer=_NEVER_COMMITS)


async def _decoder(message: Any) -> Any:
    return message.raw_message


class _NeverCommits:
    async def commit(self) -> None:
        """Positions are kept by `Consumption`."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Never used: messages are tried in place."""


_NEVER_COMMITS = _NeverCommits()


def _security(kafka: KafkaSettings) -> BaseSecurity | None:
    context = kafka.ssl_context() if kafka.security_protocol.endswith("SSL") else None
    if not kafka.security_protocol.startswith("SASL"):
        return None if context is None else BaseSecurity(ssl_context=context, use_ssl=True)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    password = kafka.sasl_password.get_secret_value() if kafka.sasl_password else ""
    return kinds[kafka.sasl_mechanism](
        username=kafka.sasl_username or "", password=password, ssl_context=context, use_ssl=context is not None
    )
