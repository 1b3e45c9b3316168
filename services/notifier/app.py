"""The notifier's wiring, top to bottom; the only reader of its settings.

changes   → Announcing → notices, alerts
notices   → Noting (expected members frozen) → database
alerts    → AlertFeed → database
policy    → instances and ticks;  receipts → Members;  both → Inquiries → HTTP
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from fastapi import FastAPI

from services.notifier.alarms import Alarm
from services.notifier.api import Ports, routes
from services.notifier.domain.ports import Publish
from services.notifier.domain.receipts import Heard
from services.notifier.handlers import AlertFeed, Announcing, Noting, Quiet
from services.notifier.inquiries import Inquiries
from services.notifier.members import Members
from services.notifier.pulse import Pulse
from services.notifier.settings import NotifierSettings
from services.notifier.settling import Settling
from services.notifier.store import transactions
from services.notifier.ticking import Ticker
from shared import topics
from shared.administration import AdminGuard
from shared.bus.cloudevents import encode
from shared.bus.connection import connect, disconnect, publish
from shared.bus.effects import Consumption, EffectsBroker, consume, consume_batches, effects_broker
from shared.bus.spread_topic import SpreadTopicReader
from shared.config import AdminSettings, CommonSettings, DatabaseSettings
from shared.database import engine_for, sessions_for
from shared.egress import guarded_session
from shared.events.contract import Contract
from shared.health import Readiness
from shared.projection.directory import InstanceDirectory
from shared.projection.instances import Instances
from shared.replica import Replica
from shared.serving import Background, Work, application, serve
from shared.telemetry import configure
from shared.wiring import Tell, admin_guard, kafka_settings, nobody_guard, pinned_authority, pinned_resolvers

TITLE: Final = "Keyfob notifier"
SCHEMA: Final = "keyfob_notifier"
SOURCE: Final = "keyfob/notifier"
GROUP: Final = "keyfob-notifier"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
WRITTEN: Final = (topics.NOTICES, topics.ALERTS)
CONSUMED: Final = (topics.VAULT_CHANGES, topics.POLICY_CHANGES, topics.CUSTODY_CHANGES)
READ: Final = (*CONSUMED, topics.POLICY, topics.RECEIPTS)


def now() -> datetime:
    """UTC."""
    return datetime.now(UTC)


def publisher(producer: AIOKafkaProducer, *, deadline_s: float) -> Publish:
    """The port `Publish` on one producer."""

    async def send(contract: Contract, *, event_id: str, key: str | None, traceparent: str | None = None) -> None:
        message = encode(contract, key=key, source=SOURCE, event_id=event_id, traceparent=traceparent)
        await publish(producer, message, deadline_s=deadline_s)

    return send


def build(
    common: CommonSettings, settings: NotifierSettings, guard: AdminGuard, background: Background
) -> tuple[FastAPI, Replica]:
    """Put one replica together; nothing connects before the application's lifespan begins."""
    kafka = kafka_settings(common, client_id="keyfob-notifier")
    engine = engine_for(settings.database(), schema=SCHEMA, pool=settings.database_pool)
    begin = transactions(sessions_for(engine))
    producer = kafka.repeating_producer()
    send = publisher(producer, deadline_s=settings.publish_deadline_s)
    authority = pinned_authority(common.policy_key, setting="KEYFOB_POLICY_KEY")
    bounds = settings.bounds()

    # One memory for whoever reads receipts and whoever answers questions.
    heard, changed, noted, quiet = Heard(), Pulse(), Pulse(), Quiet()
    alarm = Alarm(send, now)
    directory = InstanceDirectory(kafka, on_alert=lambda one: alarm.unreadable(one.topic, one.key, one.reason))
    since = now() - timedelta(seconds=settings.receipts_reach_back_s)
    receipts = SpreadTopicReader(kafka, topics.RECEIPTS, since=since)
    vouch = pinned_resolvers(common.resolver_keys)
    members = Members(directory, receipts, authority, alarm, bounds, now, heard, changed, vouch)
    ticker = Ticker(lambda: directory.snapshot, directory.moved, send, authority, alarm)
    kept = timedelta(days=settings.keep_days)
    settling = Settling(begin, heard, changed, noted, bounds, now, settings.settle_every_s, kept)
    inquiries = Inquiries(begin, heard, changed, noted, quiet, bounds, now)

    broker = effects_broker(kafka)
    consumptions = _consumptions(
        broker,
        announcing=Announcing(send, quiet),
        noting=Noting(members.expected, begin, noted, now),
        feed=AlertFeed(begin),
    )
    works: dict[str, Work] = {"policy": directory.run, "receipts": members.listen, "ticks": ticker.run}
    works |= {"receipts-end": members.keep_complete, "settling": settling.run, "alarm": alarm.run}
    replica = Replica(
        kafka=kafka,
        replication=common.kafka_replication,
        engine=engine,
        schema=SCHEMA,
        migrations=MIGRATIONS,
        made=(*WRITTEN, *map(topics.dead, (*CONSUMED, *WRITTEN))),
        read=READ,
        broker=broker,
        consumptions=consumptions,
        background=background,
        prepare=_preparation(producer, works, background),
        close=(lambda: disconnect(producer),),
    )
    replica.readiness.add("policy", lambda: directory.reason)
    replica.readiness.add("receipts", lambda: members.trouble)
    app = application(TITLE, lifespan=replica.running, readiness=replica.readiness)
    app.include_router(routes(Ports(inquiries, begin, heard, lambda: directory.snapshot), guard))
    return app, replica


def _preparation(
    producer: AIOKafkaProducer, works: Mapping[str, Work], background: Background
) -> Callable[[Tell], Coroutine[Any, Any, None]]:
    """The producer first: each of the works publishes, and so does what is consumed."""

    async def prepare(_: Tell) -> None:
        await connect(producer, what="notices")
        for name, work in works.items():
            background.start(name, work)

    return prepare


def _consumptions(
    broker: EffectsBroker, *, announcing: Announcing, noting: Noting, feed: AlertFeed
) -> tuple[Consumption, ...]:
    """What is consumed. A group for each topic: members of one group wait for each other whenever one starts."""
    changes = (
        (topics.VAULT_CHANGES, f"{GROUP}-vault"),
        (topics.POLICY_CHANGES, f"{GROUP}-policy"),
        (topics.CUSTODY_CHANGES, f"{GROUP}-custody"),
    )
    return (
        *(consume(broker, topic=topic, group=name, handler=announcing.on_change) for topic, name in changes),
        consume_batches(broker, topic=topics.NOTICES, group=f"{GROUP}-notes", handler=noting.on_notices),
        consume_batches(broker, topic=topics.ALERTS, group=f"{GROUP}-alerts", handler=feed.on_alerts),
    )


async def main() -> int:
    """Run one replica until a signal."""
    configure("notifier")
    common, settings, admin = CommonSettings(), NotifierSettings(), AdminSettings()
    background = Background()
    async with guarded_session(mode=common.mode, timeout_s=5.0, connections=4, ca_file=None) as session:
        guard = admin_guard(admin, session, mode=common.mode)
        app, _ = build(common, settings, guard, background)
        return await serve(app, mode=common.mode, http=settings, background=background)


def openapi() -> dict[str, Any]:
    """The API's description, without connecting anywhere."""
    begin = transactions(sessions_for(engine_for(DatabaseSettings().database(), schema=SCHEMA)))
    bounds, heard = NotifierSettings().bounds(), Heard()
    inquiries = Inquiries(begin, heard, Pulse(), Pulse(), Quiet(), bounds, now)
    app = application(TITLE, lifespan=nullcontext, readiness=Readiness())
    app.include_router(routes(Ports(inquiries, begin, heard, Instances), nobody_guard()))
    return app.openapi()
