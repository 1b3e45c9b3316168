"""A service that is half alive never looks ready, and a mistake in its settings is one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from shared import serving
from shared.config import HttpSettings, Misconfigured, Mode
from shared.errors import Unavailable
from shared.health import Readiness
from shared.serving import EXIT_MISCONFIGURED, Background, application, check_listening, run_service
from tests.fakes.asgi import call

CANARY = "hunter2-canary"


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_text("certificate")
    key.write_text("key")
    return {"tls_certificate": certificate, "tls_key": key}


class TestListening:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
    @pytest.mark.parametrize("mode", list(Mode))
    def test_loopback_needs_no_tls(self, mode: Mode, host: str) -> None:
        check_listening(mode, HttpSettings(host=host))

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "resolver.internal", "localhost.example"])  # noqa: S104 - refused
    def test_elsewhere_production_refuses_plain_http(self, host: str) -> None:
        with pytest.raises(Misconfigured, match=host):
            check_listening(Mode.PRODUCTION, HttpSettings(host=host))
        check_listening(Mode.DEVELOPMENT, HttpSettings(host=host))

    @pytest.mark.parametrize("host", ["10.0.0.1", "resolver.internal"])
    def test_elsewhere_production_serves_with_tls(self, pair: dict[str, Path], host: str) -> None:
        check_listening(Mode.PRODUCTION, HttpSettings(host=host, **pair))

    @pytest.mark.parametrize("missing", ["tls_certificate", "tls_key"])
    @pytest.mark.parametrize("mode", list(Mode))
    def test_half_of_a_pair_is_a_mistake_in_every_mode(self, pair: dict[str, Path], missing: str, mode: Mode) -> None:
        del pair[missing]
        with pytest.raises(Misconfigured, match="certificate and"):
            check_listening(mode, HttpSettings(host="127.0.0.1", **pair))

    @pytest.mark.parametrize("missing", ["tls_certificate", "tls_key"])
    def test_a_file_that_is_not_there_is_named(self, pair: dict[str, Path], missing: str) -> None:
        pair[missing].unlink()
        with pytest.raises(Misconfigured, match=str(pair[missing])):
            check_listening(Mode.PRODUCTION, HttpSettings(**pair))


class TestBackground:
    @pytest.fixture
    async def background(self) -> AsyncIterator[Background]:
        background = Background()
        yield background
        await background.stop()

    async def test_work_that_fails_is_known(self, background: Background) -> None:
        async def fail() -> None:
            raise ValueError(CANARY)

        with capture_logs() as logs:
            background.start("relay", fail)
            await asyncio.wait_for(background.failed.wait(), 5)
        (line,) = logs
        assert (line["work"], line["error"]) == ("relay", "ValueError")
        assert isinstance(line["exc_info"], ValueError), "without it nobody finds the place"

    async def test_work_that_ends_by_itself_is_no_failure(self, background: Background) -> None:
        ended = asyncio.Event()

        async def end() -> None:
            ended.set()

        background.start("once", end)
        await ended.wait()
        await asyncio.sleep(0)
        assert not background.failed.is_set()

    async def test_stopping_waits_until_everything_has_let_go(self, background: Background) -> None:
        started, let_go = asyncio.Event(), []

        async def work() -> None:
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                let_go.append("connection")

        background.start("work", work)
        await started.wait()
        await background.stop()
        assert let_go == ["connection"]
        assert not background.failed.is_set()

    async def test_a_failure_while_stopping_stops_nobody_else(self, background: Background) -> None:
        let_go = []

        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise Unavailable(CANARY)

        async def good() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                let_go.append("good")

        background.start("stubborn", stubborn)
        background.start("good", good)
        await asyncio.sleep(0)
        with capture_logs():
            await background.stop()
        assert let_go == ["good"]


class TestRunning:
    def test_a_mistake_in_the_settings_is_one_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        async def main() -> int:
            raise Misconfigured("The key is missing.")

        assert run_service(main) == EXIT_MISCONFIGURED
        assert capsys.readouterr().err == "keyfob: The key is missing.\n"

    def test_the_exit_code_is_what_main_says(self) -> None:
        async def main() -> int:
            return 3

        assert run_service(main) == 3

    def test_an_interrupt_is_a_good_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "_loop_factory", lambda: asyncio.new_event_loop)

        async def main() -> int:
            raise KeyboardInterrupt

        assert run_service(main) == 0

    async def test_failed_work_asks_the_server_to_stop(self) -> None:
        class Server:
            should_exit = False

        server, background = Server(), Background()
        watcher = asyncio.create_task(serving._stop_when_failed(server, background))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert not server.should_exit
        background.failed.set()
        await watcher
        assert server.should_exit


class TestApplication:
    async def test_it_is_alive_before_it_is_ready(self) -> None:
        readiness = Readiness()
        reasons: list[str | None] = ["reading up to the end"]
        readiness.add("policy", lambda: reasons[0])
        readiness.add("database", lambda: None)
        app = application("tests", lifespan=_nothing, readiness=readiness)
        assert (await call(app, "GET", "/healthz")).status == 200
        not_ready = await call(app, "GET", "/readyz")
        assert not_ready.status == 503
        assert json.loads(not_ready.body)["reasons"] == {"policy": "reading up to the end"}
        reasons[0] = None
        ready = await call(app, "GET", "/readyz")
        assert (ready.status, json.loads(ready.body)) == (200, {"status": "ready", "reasons": {}})

    async def test_a_check_added_again_replaces_the_first(self) -> None:
        readiness = Readiness()
        readiness.add("bus", lambda: "not connected")
        readiness.add("bus", lambda: None)
        assert readiness.reasons() == {}

    async def test_it_describes_itself_but_runs_no_scripts_from_elsewhere(self) -> None:
        app = application("tests", lifespan=_nothing, readiness=Readiness())
        assert (await call(app, "GET", "/openapi.json")).status == 200
        assert {(await call(app, "GET", path)).status for path in ("/docs", "/redoc")} == {404}

    async def test_its_lifespan_surrounds_its_life(self) -> None:
        steps: list[str] = []

        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            steps.append("started")
            yield
            steps.append("stopped")

        app = application("tests", lifespan=lifespan, readiness=Readiness())
        async with app.router.lifespan_context(app):
            assert steps == ["started"]
        assert steps == ["started", "stopped"]


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    structlog.reset_defaults()


async def test_no_path_and_no_query_gets_into_a_span_that_we_did_not_make(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    app = application("Tests", lifespan=contextlib.nullcontext, readiness=Readiness())
    await call(app, "GET", f"/healthz?token={CANARY}")
    assert spans.get_finished_spans() == ()
