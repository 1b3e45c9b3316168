"""From settings to a gateway: which address counts, what is refused at start, and what readiness says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway import app as wiring
from services.gateway.app import Gateway, build, openapi
from services.gateway.client.identity import Identity
from services.gateway.client.posting import Posted
from services.gateway.settings import GatewaySettings
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


def enrolled(**bootstrap: str) -> Identity:
    identity = Installation().identity
    return Identity(identity.keys, identity.enrolled.model_copy(update={"bootstrap": bootstrap}))


async def nowhere(url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
    raise Unavailable(url)


def built(identity: Identity, mode: Mode = Mode.DEVELOPMENT, **settings: Any) -> Gateway:
    common = COMMON.model_copy(update={"mode": mode})
    return build(identity, settings=GatewaySettings(**settings), common=common, post=nowhere, background=Background())


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
    ("mode", "unsafe", "one_subject"),
    [
        (Mode.PRODUCTION, False, True),
        (Mode.PRODUCTION, True, False),
        (Mode.DEVELOPMENT, False, False),
    ],
)
async def test_production_runs_one_subjects_servers_at_a_time_unless_told_otherwise(
    mode: Mode,
    unsafe: bool,  # noqa: FBT001 - a case
    one_subject: bool,  # noqa: FBT001 - a case
) -> None:
    made = built(enrolled(resolver="https://one.test"), mode, unsafe_shared_uid=unsafe)
    assert made.seats._one_subject is one_subject


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
