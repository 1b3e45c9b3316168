"""Clients lose nothing and repeat nothing by default, and no wait for a broker is endless where somebody waits."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, OutOfOrderSequenceNumber
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from shared.bus import connection
from shared.bus.cloudevents import Message
from shared.bus.connection import (
    TOPIC_EXISTS,
    KafkaSettings,
    TopicsUnsuitable,
    connect,
    disconnect,
    ensure_topics,
    publish,
    topics_present,
)
from shared.errors import Unavailable
from shared.topics import Topic

CANARY = "hunter2-canary"
MESSAGE = Message(topic="t", key="k", value=b"v", headers=(("ce_id", b"1"),))


class TestSettings:
    def test_without_security_nothing_of_it_is_named(self) -> None:
        arguments = KafkaSettings(bootstrap="b:1").client()
        assert arguments["bootstrap_servers"] == "b:1"
        assert not [name for name in arguments if name.startswith(("sasl", "ssl"))]

    def test_tls_always_verifies(self) -> None:
        for protocol in ("SSL", "SASL_SSL"):
            settings = KafkaSettings.model_validate({"security_protocol": protocol, "sasl_username": "u"})
            context = settings.client()["ssl_context"]
            assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

    @pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
    def test_the_password_reaches_the_client_and_no_repr(self, protocol: str) -> None:
        settings = KafkaSettings.model_validate(
            {"security_protocol": protocol, "sasl_username": "u", "sasl_password": SecretStr(CANARY)}
        )
        assert settings.client()["sasl_plain_password"] == CANARY
        assert CANARY not in repr(settings)
        assert CANARY not in settings.model_dump_json()

    @pytest.mark.parametrize("wrong", [{"security_protocol": "tls"}, {"sasl_mechanism": "OAUTHBEARER"}])
    def test_what_no_client_speaks_is_refused(self, wrong: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            KafkaSettings.model_validate(wrong)

    async def test_a_producer_waits_for_all_replicas_and_writes_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[dict[str, Any]] = []
        monkeypatch.setattr(connection, "EndingProducer", lambda **arguments: made.append(arguments))
        KafkaSettings().producer(transactional_id="x")
        KafkaSettings().repeating_producer()
        assert [(one["acks"], one["enable_idempotence"]) for one in made] == [("all", True), ("all", False)]
        assert made[0]["transactional_id"] == "x"

    def test_a_consumer_reads_what_is_committed_and_never_commits_by_itself(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        monkeypatch.setattr(connection, "MendingConsumer", lambda *topics, **more: made.append((topics, more)))
        KafkaSettings().consumer("t", auto_offset_reset="none")
        ((topics, arguments),) = made
        assert (topics, arguments["auto_offset_reset"]) == (("t",), "none")
        assert (arguments["isolation_level"], arguments["enable_auto_commit"]) == ("read_committed", False)


@dataclass
class Client:
    """A client whose start fails some times, and whose stop may hang."""

    troubles: list[Exception] = field(default_factory=list)
    hanging: bool = False
    stopped: int = 0

    async def start(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)

    async def stop(self) -> None:
        if self.hanging:
            await asyncio.Event().wait()
        self.stopped += 1
        if self.troubles:
            raise self.troubles.pop(0)


class TestConnecting:
    async def test_a_broker_that_is_away_is_waited_for_and_the_log_says_both_causes(self) -> None:
        client = Client([KafkaConnectionError(), ConnectionRefusedError(), TimeoutError()])
        with capture_logs() as logs:
            await connect(client, what="receipts", retry_after_s=0)
        assert [line["what"] for line in logs] == ["receipts"] * 3
        assert "wrong credentials" in logs[0]["hint"]

    async def test_a_mistake_of_ours_is_not_waited_out(self) -> None:
        with pytest.raises(ZeroDivisionError):
            await connect(Client([ZeroDivisionError()]), what="x", retry_after_s=0)

    async def test_it_can_be_given_up(self) -> None:
        with capture_logs(), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await connect(Client([KafkaConnectionError()] * 10_000), what="x", retry_after_s=0)

    @pytest.mark.parametrize("error", [KafkaConnectionError(), OSError(), TimeoutError()])
    async def test_a_stop_that_fails_is_a_stop(self, error: Exception) -> None:
        client = Client([error])
        await disconnect(client)
        assert client.stopped == 1

    async def test_a_stop_that_hangs_is_left_behind(self) -> None:
        await asyncio.wait_for(disconnect(Client(hanging=True), within_s=0.01), 5)


@dataclass
class Producer:
    """Takes messages, or fails, or never answers."""

    answer: Callable[[], Awaitable[Any]]
    sent: list[tuple[Any, ...]] = field(default_factory=list)

    async def send_and_wait(self, topic: str, value: bytes, key: bytes | None, *, headers: Any) -> Any:
        self.sent.append((topic, value, key, headers))
        return await self.answer()


class TestPublishing:
    async def test_it_returns_where_the_message_stands(self) -> None:
        async def answer() -> Any:
            return SimpleNamespace(partition=3, offset=99)

        producer = Producer(answer)
        assert await publish(producer, MESSAGE, deadline_s=1) == (3, 99)
        assert producer.sent == [("t", b"v", b"k", [("ce_id", b"1")])]

    async def test_a_broker_that_is_away_costs_no_more_than_the_deadline(self) -> None:
        with pytest.raises(Unavailable, match=r"within 0\.01 s"):
            await publish(Producer(asyncio.Event().wait), MESSAGE, deadline_s=0.01)

    @pytest.mark.parametrize(
        "error", [KafkaTimeoutError(CANARY), OutOfOrderSequenceNumber(CANARY), ConnectionResetError(CANARY)]
    )
    async def test_a_refusal_is_named_by_its_kind_alone(self, error: Exception) -> None:
        async def answer() -> None:
            raise error

        with pytest.raises(Unavailable, match=type(error).__name__) as refused:
            await publish(Producer(answer), MESSAGE, deadline_s=1)
        assert CANARY not in refused.value.detail


STATE = Topic(name="state", partitions=1, kept=None, ordered=True)
SPREAD = Topic(name="spread", partitions=6, kept=timedelta(days=7), ordered=False)


@dataclass
class Admin:
    """The broker's administration: topics with partitions, and codes that a creation answers."""

    found: dict[str, int] = field(default_factory=dict)
    codes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    away: bool = False
    looks_until_seen: int = 0
    made: list[Any] = field(default_factory=list)
    closed: int = 0

    def __call__(self, **_: Any) -> Admin:
        return self

    async def start(self) -> None:
        if self.away:
            raise KafkaConnectionError

    async def close(self) -> None:
        self.closed += 1

    async def create_topics(self, new: list[Any], *, timeout_ms: int) -> Any:
        self.made += new
        for topic in new:
            if topic.name not in self.codes:
                self.found[topic.name] = topic.num_partitions
        return SimpleNamespace(topic_errors=[(topic.name, *self.codes.get(topic.name, (0, None))) for topic in new])

    async def describe_topics(self, _: None) -> list[dict[str, Any]]:
        if self.looks_until_seen:
            self.looks_until_seen -= 1
            return []
        return [{"topic": name, "partitions": [None] * number} for name, number in self.found.items()]


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    admin = Admin()
    monkeypatch.setattr(connection, "AIOKafkaAdminClient", admin)

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(connection, "asyncio", SimpleNamespace(sleep=at_once, timeout=asyncio.timeout))
    return admin


class TestTopics:
    async def test_what_is_missing_is_made_as_the_table_says(self, admin: Admin) -> None:
        await ensure_topics(KafkaSettings(), [STATE, SPREAD], replication=3)
        assert [(one.name, one.num_partitions, one.replication_factor) for one in admin.made] == [
            ("state", 1, 3),
            ("spread", 6, 3),
        ]
        assert admin.made[0].topic_configs["cleanup.policy"] == "compact"
        assert admin.closed == 1

    async def test_what_is_there_already_is_fine(self, admin: Admin) -> None:
        admin.found, admin.codes = {"state": 1}, {"state": (TOPIC_EXISTS, "exists")}
        await ensure_topics(KafkaSettings(), [STATE])

    async def test_an_ordered_topic_with_more_partitions_has_lost_its_order(self, admin: Admin) -> None:
        admin.found, admin.codes = {"state": 2, "spread": 9}, {"state": (TOPIC_EXISTS,), "spread": (TOPIC_EXISTS,)}
        with pytest.raises(TopicsUnsuitable, match="state: 2 partitions"):
            await ensure_topics(KafkaSettings(), [STATE])
        await ensure_topics(KafkaSettings(), [SPREAD])

    async def test_a_refusal_is_passed_on_in_one_line(self, admin: Admin) -> None:
        admin.codes = {"state": (29, "not\nauthorised " + "x" * 1000)}
        with pytest.raises(TopicsUnsuitable, match="state: error 29 not authorised") as refused:
            await ensure_topics(KafkaSettings(), [STATE])
        assert len(refused.value.detail) < 300
        assert admin.closed == 1

    async def test_a_refusal_without_words_is_one_too(self, admin: Admin) -> None:
        admin.codes = {"state": (29,)}
        with pytest.raises(TopicsUnsuitable, match="error 29"):
            await ensure_topics(KafkaSettings(), [STATE])

    async def test_a_topic_may_take_a_moment_until_it_is_seen(self, admin: Admin) -> None:
        admin.looks_until_seen = 5
        await ensure_topics(KafkaSettings(), [STATE])

    async def test_a_topic_of_others_that_is_missing_is_named(self, admin: Admin) -> None:
        admin.found = {"state": 1}
        await topics_present(KafkaSettings(), [STATE])
        with pytest.raises(TopicsUnsuitable, match="spread: missing, or we may not describe it"):
            await topics_present(KafkaSettings(), [STATE, SPREAD])
        assert admin.made == []

    @pytest.mark.parametrize("ask", [ensure_topics, topics_present])
    async def test_a_broker_that_is_away_is_an_outage_and_no_verdict(
        self, admin: Admin, ask: Callable[..., Awaitable[None]]
    ) -> None:
        admin.away = True
        with pytest.raises(Unavailable, match="broker down, or wrong credentials"):
            await ask(KafkaSettings(), [STATE])
        assert admin.closed == 1
