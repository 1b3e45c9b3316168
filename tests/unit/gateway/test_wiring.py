"""From settings to a gateway: which address counts, what is refused at start, and what readiness says."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway import app as wiring
from services.gateway.app import Gateway, build, openapi
from services.gateway.client.identity import Identity
from services.gateway.client.posting import Posted
from services.gateway.files import instances_own, users_own
from services.gateway.sandboxes import Bubblewrap, Choice, Sandbox
from services.gateway.settings import GatewaySettings
from services.gateway.views import View
from shared.bus.cloudevents import Message
from shared.bus.connection import KafkaSettings
from shared.config import CommonSettings, Misconfigured, Mode
from shared.errors import Unavailable
from shared.health import Readiness
from shared.serving import Background
from tests.fakes.asgi import call
from tests.fakes.installation import Installation

COMMON = CommonSettings(mode=Mode.DEVELOPMENT, kafka_bootstrap="127.0.0.1:9")


@pytest.fixture(autouse=True)
def _no_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here sends a receipt, and a producer that is not closed complains."""
    monkeypatch.setattr(KafkaSettings, "repeating_producer", lambda _: object())


@dataclass
class Host:
    """Whether servers can be given a sandbox, and what they would see."""

    output: pytest.CaptureFixture[str]
    sandboxed: bool = False
    views: list[View] = field(default_factory=list)

    def detect(self, _: Choice, view: View, __: Path) -> Sandbox | None:
        self.views.append(view)
        return Bubblewrap({}, view) if self.sandboxed else None


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    here = Host(capsys)
    monkeypatch.setattr(wiring, "detect", here.detect)
    return here


def enrolled(**bootstrap: str) -> Identity:
    identity = Installation().identity
    return Identity(identity.keys, identity.enrolled.model_copy(update={"bootstrap": bootstrap}))


async def nowhere(url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
    raise Unavailable(url)


@pytest.fixture(autouse=True)
def _own_scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def built(identity: Identity, mode: Mode = Mode.DEVELOPMENT, **settings: Any) -> Gateway:
    common = COMMON.model_copy(update={"mode": mode})
    own = GatewaySettings(**{"sandbox": Choice.OFF, **settings})
    return build(identity, settings=own, common=common, post=nowhere, background=Background())


async def test_resolvers_are_those_of_the_enrolment_unless_settings_name_others() -> None:
    identity = enrolled(resolver="https://one.test, https://two.test/")
    assert list(built(identity).instance.resolvers.urls) == ["https://one.test", "https://two.test"]
    named = built(identity, resolver_urls="https://three.test")
    assert list(named.instance.resolvers.urls) == ["https://three.test"]


@pytest.mark.parametrize("urls", ["", " , "])
async def test_without_any_resolver_it_does_not_start(urls: str) -> None:
    with pytest.raises(Misconfigured, match="KEYFOB_GATEWAY_RESOLVER_URLS"):
        built(enrolled(resolver=urls))


async def test_an_address_that_would_carry_tokens_in_the_clear_stops_the_start() -> None:
    with pytest.raises(Misconfigured, match="https"):
        built(enrolled(resolver="http://resolver.example"), Mode.PRODUCTION)


def test_a_broker_that_is_none_ends_the_start() -> None:
    with pytest.raises(Misconfigured, match="KEYFOB_GATEWAY_KAFKA_BOOTSTRAP: must be host:port"):
        GatewaySettings(kafka_bootstrap="kafka://b:1", name="ward-7")


@pytest.mark.parametrize(
    ("setting", "told", "expected"),
    [("own:1", "told:2", "own:1"), ("", "told:2", "told:2"), ("", "", COMMON.kafka_bootstrap)],
)
async def test_the_broker_is_the_settings_then_the_enrolments_then_the_common_one(
    setting: str, told: str, expected: str
) -> None:
    settings = GatewaySettings(kafka_bootstrap=setting, name="ward-7")
    found = wiring._kafka(settings, COMMON, enrolled(**({"broker": told} if told else {})))
    assert (found.bootstrap, found.client_id) == (expected, "gateway-ward-7")


@pytest.mark.parametrize(
    ("mode", "given", "one_subject", "said"),
    [
        (Mode.PRODUCTION, "nothing", True, "one subject at a time"),
        (Mode.PRODUCTION, "leave", False, "can read what others were given"),
        (Mode.DEVELOPMENT, "nothing", False, "can read what others were given"),
        (Mode.PRODUCTION, "a sandbox", False, "bubblewrap"),
        (Mode.DEVELOPMENT, "a sandbox", False, "bubblewrap"),
    ],
)
async def test_without_a_sandbox_production_runs_one_subjects_servers_at_a_time_and_development_warns(
    mode: Mode,
    given: str,
    one_subject: bool,  # noqa: FBT001 - a case
    said: str,
    host: Host,
) -> None:
    host.sandboxed = given == "a sandbox"
    made = built(enrolled(resolver="https://one.test"), mode, unsafe_shared_uid=given == "leave")
    assert made.seats._one_subject is one_subject
    assert host.output.readouterr().out.count(said) == 1, "once, at the start"


async def test_what_is_the_gateways_own_is_hidden_from_servers(tmp_path: Path, host: Host) -> None:
    settings = {
        "identity_dir": Path("/keys"),
        "enrolment_token_file": Path("/token"),
        "tls_key": Path("/tls.key"),
        "tls_certificate": Path("/tls.pem"),
        "sandbox_hides": "/other, /more",
        "sandbox_shows": "/tools",
    }
    built(enrolled(resolver="https://one.test"), **settings)
    (view,) = host.views
    named = {Path(path) for path in ("/keys", "/token", "/tls.key", "/other", "/more")}
    assert named | {tmp_path / users_own()} <= set(view.hidden)
    assert view.shown == (Path("/tools"),)


async def test_what_a_killed_predecessors_servers_wrote_is_removed_and_others_stay(tmp_path: Path) -> None:
    identity = enrolled(resolver="https://one.test")
    shared = tmp_path / users_own()
    own, other = shared / instances_own(identity.instance_id), shared / "other"
    for directory in (own / "left", other / "left"):
        directory.mkdir(parents=True)
    for directory in (shared, own):
        directory.chmod(0o700)
    built(identity)
    assert list(own.iterdir()) == []
    assert list(other.iterdir()) == [other / "left"]


async def test_a_scratch_directory_that_others_may_enter_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / users_own()).mkdir(mode=0o755)
    with pytest.raises(Misconfigured, match="KEYFOB_GATEWAY_SCRATCH_DIR"):
        built(enrolled(resolver="https://one.test"))


def test_a_sandbox_is_one_of_four() -> None:
    with pytest.raises((Misconfigured, ValidationError)):
        GatewaySettings(sandbox="docker")


async def test_it_is_not_ready_before_it_knows_its_place_and_wrote_a_receipt() -> None:
    made = built(enrolled(resolver="https://one.test"))
    assert (await call(made.app, "GET", "/healthz")).status == 200
    reply = await call(made.app, "GET", "/readyz")
    assert reply.status == 503
    assert b"notices" in reply.body
    assert b"no receipt was written yet" in reply.body


async def test_what_is_no_route_is_a_problem_document() -> None:
    made = built(enrolled(resolver="https://one.test"))
    reply = await call(made.app, "GET", "/v1/nothing")
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    "settings",
    [
        {"fence_s": 61},
        {"drain_s": 60},
        {"drain_s": 59.5},
        {"fence_s": 10, "drain_s": 9.5, "stop_s": 0.5},
        {"fence_s": 0},
        {"body_limit": 10},
        {"name": ""},
    ],
)
def test_times_that_would_make_others_believe_too_early_are_refused(settings: dict[str, Any]) -> None:
    """After 60 s without a word the notifier says that an instance holds nothing: so it must be by then."""
    with pytest.raises((Misconfigured, ValidationError)):
        GatewaySettings(**settings)


def test_the_defaults_keep_within_the_fence() -> None:
    assert GatewaySettings().drain_s + GatewaySettings().stop_s < GatewaySettings().fence_s


def test_libraries_that_quote_what_they_can_not_parse_are_silent() -> None:
    before = {name: logging.getLogger(name).level for name in ("mcp", "client", "httpx2", "httpcore2")}
    try:
        wiring._quiet_libraries()
        assert not logging.getLogger("mcp.client.session").isEnabledFor(logging.CRITICAL)
        assert not logging.getLogger("httpx2").isEnabledFor(logging.CRITICAL)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


async def test_the_last_receipt_is_not_waited_for_longer_than_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = Installation().instance()

    async def late(_: Message) -> None:
        raise TimeoutError

    instance.receipts.publish = late
    await wiring._say_goodbye(instance)


def test_what_is_published_of_the_http_interface_is_health() -> None:
    assert openapi()["info"]["title"] == "Keyfob gateway"
    assert [route.path for route in Readiness().routes()] == ["/healthz", "/readyz"]
