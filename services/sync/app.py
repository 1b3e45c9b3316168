"""The wiring of sync, top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp

from services.sync.api.feed import OPENAPI_PATH, PREFIX, FeedReceiver, FeedSecrets, Hear
from services.sync.api.routes import Desk, add_routes
from services.sync.domain.feed import hint_of
from services.sync.handlers.connections import Connections
from services.sync.handlers.keepers import Keepers, Means, Rhythm
from services.sync.handlers.looks import Looker
from services.sync.handlers.runs import RunDesk
from services.sync.handlers.surveys import Surveyor
from services.sync.settings import SyncSettings
from services.sync.sources.credentials import CredentialFiles
from services.sync.sources.kv2 import Kv2Reader
from services.sync.sources.port import ReaderFactory
from services.sync.store.registers import PostgresRegister
from services.sync.store.runs import PostgresRuns
from services.sync.store.signatures import Seal
from services.sync.store.tables import SCHEMA
from services.sync.store.transactions import PostgresBooks
from services.sync.store.views import PostgresViews
from shared import topics
from shared.config import AdminSettings, CommonSettings, Misconfigured
from shared.crypto.key_files import KeyFileRefused
from shared.crypto.signing import SigningKey
from shared.database import engine_for, migrate, sessions_for
from shared.egress import Egress, guarded_session
from shared.events.catalog import KvSource
from shared.health import Readiness
from shared.outbox.commits import CommitLog
from shared.outbox.relay import Relay
from shared.serving import Background, application, serve
from shared.telemetry import configure
from shared.wiring import admin_guard, kafka_settings, nobody_guard, topics_ready

TITLE: Final = "Keyfob sync"
SOURCE: Final = "keyfob/sync"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
WRITTEN: Final = tuple(topic for topic in topics.TOPICS if topic.name in {topics.CATALOG, topics.VAULT_CHANGES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is read from outside, read once."""

    common: CommonSettings = field(default_factory=CommonSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One replica of sync, wired: its application starts and stops everything else."""

    app: ASGIApp
    background: Background
    readiness: Readiness


def build(settings: Settings, session: aiohttp.ClientSession, egress: Egress) -> Service:
    """Wire one replica. Nothing is connected before the application starts.

    `session` fetches issuers' keys, `egress` reaches sources.
    """
    common, sync = settings.common, settings.sync
    sync.check()
    engine = engine_for(sync.database(), schema=SCHEMA, pool=sync.database_pool)
    kafka = kafka_settings(common, client_id="keyfob-sync")
    relay = Relay(database=sync.database(), schema=SCHEMA, kafka=kafka, state_topic=topics.CATALOG)
    parts = _parts(settings, engine, _readers(settings, egress), Seal(_signing_key(settings)))
    background, readiness = Background(), Readiness()
    # Only the newest reason counts; a list would grow for as long as a broker is away.
    waiting: deque[str] = deque(maxlen=1)
    readiness.add("relay", lambda: waiting[0] if waiting else relay.reason)
    # Not whether each source answers: one that is away must not take sync out of service for all others.
    readiness.add("sources", lambda: parts.keepers.trouble)

    async def publish() -> None:
        await topics_ready(kafka, made=WRITTEN, read=(), replication=common.kafka_replication, tell=waiting.append)
        waiting.clear()
        await relay.run()

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        await migrate(engine, scripts=MIGRATIONS, schema=SCHEMA)
        # The relay waits for its topics by itself, so that sources are looked at while the broker is still away.
        background.start("relay", publish)
        background.start("keepers", parts.keepers.run)
        background.start("runs", parts.desk.runs.run)
        try:
            yield
        finally:
            # Work first, connections last: what is cancelled has to give its own back.
            await background.stop()
            await engine.dispose()

    app = application(TITLE, lifespan=run, readiness=readiness)
    add_routes(app, parts.desk, admin_guard(settings.admin, session, mode=common.mode))
    # In front of the framework: a vault waits for this answer, and nothing of routing or validation may cost it time.
    receiver = FeedReceiver(app, secrets=FeedSecrets(sync.feed_secrets_dir), hear=_hearer(parts.keepers))
    return Service(app=receiver, background=background, readiness=readiness)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What reaches outside: the keepers, and the desk of the admin API."""

    keepers: Keepers
    desk: Desk


def _parts(settings: Settings, engine: AsyncEngine, readers: Mapping[str, ReaderFactory], seal: Seal) -> _Parts:
    sync, mode = settings.sync, settings.common.mode
    sessions, commits = sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE)
    books = PostgresBooks(engine, sessions, commits, seal)
    views = PostgresViews(sessions, seal)
    register = PostgresRegister(sessions, commits, seal)
    # One bound for all sources: looks are what holds the database's connections.
    looker = Looker(books, asyncio.Semaphore(sync.looks))
    means = Means(
        books=books,
        looker=looker,
        surveyor=Surveyor(books, looker),
        surveys=asyncio.Semaphore(sync.surveys),
        rhythm=Rhythm(sweep_every_s=sync.sweep_every_s, jitter=sync.sweep_jitter, retry_s=sync.sweep_retry_s),
        hint_capacity=sync.hint_capacity,
        workers=sync.hint_workers,
    )
    keepers = Keepers(means, readers)
    runs = RunDesk(PostgresRuns(engine, sessions), means, keepers, at_once=sync.manual_syncs)
    connections = Connections(register=register, views=views, keepers=keepers, readers=readers, mode=mode)
    return _Parts(keepers, Desk(views=views, register=register, connections=connections, runs=runs))


def _hearer(keepers: Keepers) -> Hear:
    """Entries of the feed go to the keeper of their source; those of a source that is not connected nowhere."""

    def hear(name: str, entry: Mapping[str, Any], traceparent: str | None) -> None:
        keeper = keepers.named(name)
        if keeper is not None:
            # The place is the keeper's own: an entry is compared with what was connected, whoever sent it.
            keeper.hear(hint_of(entry, keeper.source.record.place), traceparent=traceparent)

    return hear


def _readers(settings: Settings, egress: Egress) -> dict[str, ReaderFactory]:
    """The one map of providers."""
    mode = settings.common.mode
    credentials = CredentialFiles(settings.sync.credentials_dir, mode=mode)

    def kv2(name: str, place: KvSource) -> Kv2Reader:
        return Kv2Reader(name, place, egress=egress, credentials=credentials, mode=mode)

    return {"kv2": kv2}


def _signing_key(settings: Settings) -> SigningKey:
    """The key, which must be the one that everybody pins: else nobody would believe a record of ours."""
    try:
        key = SigningKey.load(settings.sync.signing_key_file)
    except KeyFileRefused as error:
        raise Misconfigured(error.detail) from None
    pinned = settings.common.catalog_key
    if pinned and pinned != key.verify_key.to_base64():
        raise Misconfigured(
            f"KEYFOB_SYNC_SIGNING_KEY_FILE holds another key ({key.key_id}) than the one in KEYFOB_CATALOG_KEY."
        )
    return key


def openapi() -> dict[str, Any]:
    """The published description of the HTTP API; connects nowhere."""
    engine = engine_for(make_url("postgresql+asyncpg://nowhere/"), schema=SCHEMA)
    parts = _parts(Settings(), engine, {}, Seal(SigningKey.generate()))
    app = application(TITLE, lifespan=contextlib.nullcontext, readiness=Readiness())
    add_routes(app, parts.desk, nobody_guard())
    document = app.openapi()
    document["paths"][PREFIX + "{source_name}"] = OPENAPI_PATH
    return document


async def main() -> int:
    """Serve sync until a signal; the process's exit code."""
    settings = Settings()
    configure("sync")
    mode, sync = settings.common.mode, settings.sync
    ways_out = Egress(
        mode=mode, timeout_s=sync.source_timeout_s, connections=sync.source_connections, ca_file=sync.source_ca_file
    )
    async with guarded_session(mode=mode) as session, ways_out as egress:
        service = build(settings, session, egress)
        return await serve(service.app, mode=mode, http=sync, background=service.background)
