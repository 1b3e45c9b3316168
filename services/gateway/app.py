"""The wiring of a gateway instance, top to bottom; the only reader of its settings."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from services.gateway.client.enrolment import take_up
from services.gateway.client.environment import NO_ENVIRONMENT, Environment
from services.gateway.client.fence import TickFence
from services.gateway.client.identity import Identity, alone
from services.gateway.client.instance import Holding, Instance
from services.gateway.client.ledger import Ledger
from services.gateway.client.posting import HttpPost, Post, check_url
from services.gateway.client.receipts import ReceiptWriter
from services.gateway.client.resolving import Resolvers
from services.gateway.edge import Edge
from services.gateway.files import ValueFiles, instances_own, make_private, users_own, usual_places
from services.gateway.proxy import Proxy
from services.gateway.sandboxes import Sandbox, detect
from services.gateway.seats import Seats
from services.gateway.settings import GatewaySettings
from services.gateway.upstream import Limits, Upstream
from services.gateway.views import View
from shared import telemetry, topics
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings, connect, disconnect, publish
from shared.bus.whole_topic import FromEnd, WholeTopicReader
from shared.config import CommonSettings, Misconfigured, Mode
from shared.errors import Unavailable
from shared.health import Readiness
from shared.problems import install_problem_handlers
from shared.serving import NO_TELEMETRY, Background, serve
from shared.wiring import kafka_settings

ENROL_AGAIN_S = 1.0
PREDECESSOR_S = 15.0
"""A gateway that is told to stop has let go of everything by then; one that has not must not have a successor."""
FLOOR_NOTICES = 500
"""How far before the end of `notices` an instance begins: what it resolves first must not be older than what others
were told lately, or a resolver that lags could give it a version whose end was announced before it listened."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """One built instance."""

    app: FastAPI
    instance: Instance
    seats: Seats
    sandbox: Sandbox | None


def build(
    identity: Identity,
    *,
    settings: GatewaySettings,
    common: CommonSettings,
    post: Post,
    background: Background,
    environment: Environment = NO_ENVIRONMENT,
) -> Gateway:
    """The application of an enrolled instance. Its background work starts with the application's lifespan."""
    kafka = _kafka(settings, common, identity)
    producer = kafka.repeating_producer()
    instance = _instance(identity, settings, common, kafka, producer, post, environment)
    limits = _limits(settings, common, identity)

    def start_upstream(holding: Holding) -> Upstream:
        return Upstream(holding.server.definition, holding.values, limits)

    seats = Seats(
        instance,
        start_upstream,
        upstream_limit=settings.upstream_limit,
        one_subject=common.mode is Mode.PRODUCTION and limits.sandbox is None and not settings.unsafe_shared_uid,
        end_on_guess=settings.end_on_guess,
    )
    # The SDK keeps sessions; whose they are it learns from the user that the edge puts into each request.
    manager = StreamableHTTPSessionManager(
        Proxy(seats).server(),
        session_idle_timeout=settings.session_idle_s,
        max_request_body_size=settings.body_limit,
        max_sessions=settings.session_limit,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Not awaited: readiness must be able to say that the broker is away.
        background.start("instance", lambda: _run(instance, producer))
        background.start("seats", lambda: seats.tend(idle_s=settings.idle_s))
        try:
            async with manager.run():
                yield
        finally:
            # Servers first, then the receipt that says so, and only then whatever carries receipts.
            await seats.close(within_s=settings.stop_s + 3)
            limits.files.clear()
            await _say_goodbye(instance)
            await background.stop()
            await disconnect(producer)

    readiness = Readiness()
    readiness.add("notices", instance.not_ready)
    readiness.add("receipts", lambda: instance.receipts.trouble)
    app = _application(lifespan, readiness)
    edge = Edge(seats, manager.handle_request, body_limit=settings.body_limit, session_limit=settings.session_limit)
    app.mount("/mcp", edge)
    return Gateway(app, instance, seats, limits.sandbox)


def _limits(settings: GatewaySettings, common: CommonSettings, identity: Identity) -> Limits:
    places = usual_places() if settings.value_file_dir is None else (settings.value_file_dir,)
    files = ValueFiles.of(identity.instance_id, places)
    # What a predecessor that was killed left there: nobody else acts under this identity.
    files.clear()
    scratch = _scratch(settings, identity)
    return Limits(
        start_s=settings.start_s,
        stop_s=settings.stop_s,
        drain_s=settings.drain_s,
        line_limit=settings.line_limit,
        command_path=settings.command_path,
        scratch_dir=scratch,
        sandbox=_sandbox(settings, common, files, scratch),
        mode=common.mode,
        files=files,
        allowed_variables=settings.allows(),
    )


def _scratch(settings: GatewaySettings, identity: Identity) -> Path:
    """Working directories of servers, emptied: a killed predecessor's may hold what servers wrote."""
    shared = (settings.scratch_dir or Path(tempfile.gettempdir())) / users_own()
    scratch = shared / instances_own(identity.instance_id)
    try:
        make_private(shared)
        make_private(scratch)
    except Unavailable as error:
        raise Misconfigured(f"KEYFOB_GATEWAY_SCRATCH_DIR, {shared}: {error.detail}") from None
    for left in scratch.iterdir():
        shutil.rmtree(left, ignore_errors=True)
    return scratch.resolve()


def _sandbox(settings: GatewaySettings, common: CommonSettings, files: ValueFiles, scratch: Path) -> Sandbox | None:
    """What servers run in. All gateways of this user have their directories beside each other: hidden together."""
    shared = (scratch.parent, None if files.root is None else files.root.parent, common.kafka_sasl_password_file)
    hidden = (*settings.hides(), *(path for path in shared if path is not None))
    sandbox = detect(settings.sandbox, View(hidden=hidden, shown=settings.shows()), scratch)
    if sandbox is not None:
        _log.info("sandbox", tool=sandbox.name)
    elif common.mode is Mode.PRODUCTION and not settings.unsafe_shared_uid:
        _log.warning("no sandbox: local MCP servers of one subject at a time", setting="KEYFOB_GATEWAY_SANDBOX")
    else:
        _log.warning("no sandbox: a local MCP server can read what others were given", setting="KEYFOB_GATEWAY_SANDBOX")
    return sandbox


def _application(lifespan: Any, readiness: Readiness) -> FastAPI:
    """Without the small body limit of the other services: the edge has its own."""
    app = FastAPI(
        title="Keyfob gateway", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, telemetry=NO_TELEMETRY
    )
    install_problem_handlers(app)
    app.router.routes.extend(readiness.routes())
    return app


def _instance(  # noqa: PLR0917
    identity: Identity,
    settings: GatewaySettings,
    common: CommonSettings,
    kafka: KafkaSettings,
    producer: AIOKafkaProducer,
    post: Post,
    environment: Environment,
) -> Instance:
    async def publish_receipt(message: Message) -> None:
        await publish(producer, message, deadline_s=settings.receipt_deadline_s)

    ledger = Ledger()
    urls = settings.resolver_urls or identity.enrolled.bootstrap.get("resolver", "")
    resolvers = Resolvers(
        [check_url(url.strip(), common.mode) for url in urls.split(",") if url.strip()],
        identity,
        post,
        deadline_s=settings.resolve_deadline_s,
    )
    if not resolvers.urls:
        raise Misconfigured("No resolver is known: set KEYFOB_GATEWAY_RESOLVER_URLS.")
    return Instance(
        identity,
        WholeTopicReader(kafka, topics.NOTICES, start=FromEnd(back=FLOOR_NOTICES)),
        resolvers,
        ReceiptWriter(
            ledger,
            identity.instance_id,
            identity.keys.signing,
            publish_receipt,
            heartbeat_s=settings.heartbeat_s,
            variables=environment.present,
        ),
        ledger,
        TickFence(settings.fence_s),
        environment=environment,
    )


def _kafka(settings: GatewaySettings, common: CommonSettings, identity: Identity) -> KafkaSettings:
    bootstrap = settings.kafka_bootstrap or identity.enrolled.bootstrap.get("broker") or common.kafka_bootstrap
    # The enrolment may know better than the machine's own settings: it was written by who runs the installation.
    named = common.model_copy(update={"kafka_bootstrap": bootstrap})
    return kafka_settings(named, client_id=f"gateway-{settings.name}")


async def _run(instance: Instance, producer: AIOKafkaProducer) -> None:
    """Position first: whatever is resolved later, its notices will be seen."""
    await instance.start()
    await connect(producer, what="receipts")
    await instance.run()


async def _say_goodbye(instance: Instance) -> None:
    """A last receipt: everything is gone."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await instance.receipts.write()


async def _enrol(settings: GatewaySettings, common: CommonSettings, post: HttpPost) -> Identity:
    policy_url = check_url(settings.policy_url, common.mode) if settings.policy_url else ""
    while True:
        try:
            return await take_up(
                settings.identity_dir,
                policy_url=policy_url,
                token_file=settings.enrolment_token_file,
                name=settings.name,
                post=post,
            )
        except Unavailable as error:
            _log.warning("not enrolled yet", reason=error.detail)
            await asyncio.sleep(ENROL_AGAIN_S)


def _quiet_libraries() -> None:
    """The SDK logs messages and results it can't parse, and whole exceptions: nothing of that may be written."""
    for name in ("mcp", "client", "httpx2", "httpcore2", "sse_starlette"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def openapi() -> dict[str, Any]:
    """The OpenAPI document of what isn't MCP: health."""
    return _application(None, Readiness()).openapi()


async def main() -> int:
    """Run the gateway until a signal."""
    settings, common = GatewaySettings(), CommonSettings()
    # Before anything can be started that would inherit it.
    environment = Environment.take(settings.environment, os.environb)
    telemetry.configure("gateway")
    _quiet_libraries()
    background = Background()
    # Before there is an identity: two that start at once in an empty directory must not both enrol.
    async with HttpPost() as post, alone(settings.identity_dir, within_s=PREDECESSOR_S):
        identity = await _enrol(settings, common, post)
        gateway = build(
            identity, settings=settings, common=common, post=post, background=background, environment=environment
        )
        return await serve(gateway.app, mode=common.mode, http=settings, background=background)
