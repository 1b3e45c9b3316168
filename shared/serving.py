"""Runs one service: its HTTP application and its background work, in one event loop, until a signal.

Background work that fails ends the process with a non-zero code: a supervisor starts it again, and a service
that is half alive never looks ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp

from shared.config import HttpSettings, Misconfigured, Mode
from shared.health import Readiness
from shared.origins import is_loopback
from shared.problems import BodyLimit, install_problem_handlers

_log = structlog.get_logger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
Lifespan = Callable[[], contextlib.AbstractAsyncContextManager[None]]

KEEP_ALIVE_S = 75
"""Longer than any client of ours keeps an idle connection (aiohttp: 15 s): the one who asks closes first, so that no
request is ever sent into a connection that is just being closed."""

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h."""


# FastAPI's own spans and logs would hold paths, queries and exceptions' messages, in which names and values stand:
# `shared.tracing` makes the spans, of routes only.
NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


class Background:
    """Named tasks that live as long as the service; the first that fails ends it."""

    def __init__(self) -> None:
        # The event loop itself holds tasks only weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed = asyncio.Event()

    def start(self, name: str, work: Work) -> None:
        """Run `work()` until the service stops."""
        task = asyncio.create_task(work(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            _log.error("background work failed", work=task.get_name(), error=type(error).__name__, exc_info=error)
            self.failed.set()

    async def stop(self) -> None:
        """Cancel everything and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def application(title: str, *, lifespan: Lifespan, readiness: Readiness) -> FastAPI:
    """A FastAPI application with problem documents, bounded bodies and health routes."""

    @contextlib.asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        async with lifespan():
            yield

    # The schema, but not the pages that show it: they load scripts from elsewhere.
    app = FastAPI(
        title=title,
        version="1",
        lifespan=run,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        telemetry=NO_TELEMETRY,
    )
    install_problem_handlers(app)
    app.add_middleware(BodyLimit)
    app.router.routes.extend(readiness.routes())
    return app


def check_listening(mode: Mode, http: HttpSettings) -> None:
    """Refuse plain HTTP outside loopback in production: requests carry the subject's token."""
    if mode is Mode.PRODUCTION and not is_loopback(http.host) and http.tls_certificate is None:
        raise Misconfigured(f"Listening on {http.host} needs a TLS certificate and key in production mode.")
    if (http.tls_certificate is None) != (http.tls_key is None):
        raise Misconfigured("TLS needs both, a certificate and its key.")
    for file in (http.tls_certificate, http.tls_key):
        if file is not None and not file.is_file():
            raise Misconfigured(f"{file} is not there: TLS needs a certificate and its key.")


async def serve(app: ASGIApp, *, mode: Mode, http: HttpSettings, background: Background) -> int:
    """Serve until SIGINT, SIGTERM or failed background work; the process's exit code."""
    check_listening(mode, http)
    config = uvicorn.Config(
        app,
        host=http.host,
        port=http.port,
        http="httptools",
        loop="uvloop",
        # Paths hold names, and more people read logs than may see those.
        access_log=False,
        # Nobody may tell by a header where a request comes from or which scheme it used.
        proxy_headers=False,
        # Its lines go where ours go, and through what hides secrets (`shared.telemetry`).
        log_config=None,
        server_header=False,
        date_header=False,
        ssl_certfile=http.tls_certificate,
        ssl_keyfile=http.tls_key,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = uvicorn.Server(config)
    # A service whose background work failed would still answer, from what it knew last.
    watcher = asyncio.create_task(_stop_when_failed(server, background))
    try:
        await server.serve()
    finally:
        watcher.cancel()
    return EXIT_FAILED if background.failed.is_set() or not server.started else 0


class _WithoutSignals(uvicorn.Server):
    """A second server of one process: signals are for the first one, which stops everything."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def without_signals(config: uvicorn.Config) -> uvicorn.Server:
    """A server that somebody else tells to stop (`should_exit`)."""
    return _WithoutSignals(config)


async def _stop_when_failed(server: uvicorn.Server, background: Background) -> None:
    await background.failed.wait()
    server.should_exit = True


def run_service(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run `main` on uvloop; a misconfiguration is one sentence on stderr, never a stack trace."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main())
    except Misconfigured as error:
        sys.stderr.write(f"keyfob: {error}\n")
        return EXIT_MISCONFIGURED
    except KeyboardInterrupt:
        return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop  # noqa: PLC0415 - not available on every platform that can run the commands

    return uvloop.new_event_loop
