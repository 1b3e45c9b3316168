"""Policy put together: its key, what instances are told, and that nothing starts before its topics are there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.policy import app as wiring
from services.policy.app import AfterTopics, Settings, _handout, _policy_key, openapi
from services.policy.settings import PolicySettings
from services.policy.signing import PolicyKey
from shared import topics
from shared.bus.connection import KafkaSettings
from shared.config import CommonSettings, Misconfigured
from shared.crypto.signing import SigningKey
from shared.events.policy import GrantRecord, ProfileRecord


def settings(file: Path, **common: Any) -> Settings:
    return Settings(common=CommonSettings(**common), policy=PolicySettings(signing_key_file=file))


def test_the_key_must_be_the_one_that_everybody_pins(tmp_path: Path) -> None:
    """Else everything would start, and nobody would believe a record."""
    key, file = SigningKey.generate(), tmp_path / "policy.key"
    key.save(file)
    assert _policy_key(settings(file)).public == key.verify_key.to_base64()
    assert _policy_key(settings(file, policy_key=key.verify_key.to_base64())).key.key_id == key.key_id
    with pytest.raises(Misconfigured, match="KEYFOB_POLICY_KEY") as failure:
        _policy_key(settings(file, policy_key=SigningKey.generate().verify_key.to_base64()))
    assert key.key_id in str(failure.value)


def test_a_key_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"absent\.key"):
        _policy_key(settings(tmp_path / "absent.key"))


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.key"
    SigningKey.generate().save(file)
    file.chmod(0o644)
    with pytest.raises(Misconfigured):
        _policy_key(settings(file))


def test_gateways_are_told_the_broker_as_they_see_it_or_else_as_we_do(tmp_path: Path) -> None:
    key = PolicyKey(SigningKey.generate())
    common = CommonSettings(kafka_bootstrap="inside:9092")
    for told, expected in (("", "inside:9092"), ("outside:9093", "outside:9093")):
        own = PolicySettings(gateway_kafka_bootstrap=told, notifier_url=told)
        handout = _handout(Settings(common=common, policy=own), key)
        assert (handout.broker, handout.policy_key) == (expected, key.public)
        assert handout.notifier == (told or None)


def test_the_published_description_needs_nothing_to_run() -> None:
    paths = openapi()["paths"]
    assert {"/v1/grants", "/v1/me/choices", "/v1/who-could", "/v1/enrol"} <= paths.keys()


async def test_work_begins_when_its_topics_are_there_and_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there, working = asyncio.Event(), asyncio.Event()
    asked: list[dict[str, Any]] = []

    async def topics_ready(_: object, *, tell: Any, **wanted: Any) -> None:
        asked.append(wanted)
        tell("waiting for keyfob.catalog.v1")
        await there.wait()

    async def work() -> None:
        working.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(wiring, "topics_ready", topics_ready)
    reads = tuple(topic for topic in topics.TOPICS if topic.name == topics.CATALOG)
    trouble: list[str] = []
    after = AfterTopics(kafka=KafkaSettings(), work=work, why_not=lambda: trouble[-1] if trouble else None, read=reads)
    assert after.reason() == "not started"
    running = asyncio.create_task(after.run())
    await asyncio.sleep(0)
    assert after.reason() == "waiting for keyfob.catalog.v1"
    assert not working.is_set()
    there.set()
    await working.wait()
    assert after.reason() is None
    trouble.append("the relay is fenced")
    assert after.reason() == "the relay is fenced"
    assert asked == [{"made": (), "read": reads, "replication": 1}]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_record_counts_only_as_what_it_was_signed_as() -> None:
    key = PolicyKey(SigningKey.generate())
    record = ProfileRecord(id="profile/1", seq=1, revision=1, name="ward")
    payload = record.to_json()
    _, signature = key.sign(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
    assert key.signed(ProfileRecord, key=record.id, payload=payload, signature=signature)
    assert not key.signed(GrantRecord, key=record.id, payload=payload, signature=signature)
    assert not key.signed(ProfileRecord, key="profile/2", payload=payload, signature=signature)
    assert not key.signed(ProfileRecord, key=record.id, payload=payload + b" ", signature=signature)
    assert not PolicyKey(SigningKey.generate()).signed(
        ProfileRecord, key=record.id, payload=payload, signature=signature
    )


def test_a_promise_is_no_record_and_a_record_no_promise() -> None:
    """They are signed by one key: without words that keep them apart, one could be passed off as the other."""
    key = PolicyKey(SigningKey.generate())
    payload = b'{"id":"enrolment/1"}'
    promise = key.promise(payload)
    assert key.promised(payload, signature=promise)
    assert not key.promised(payload + b" ", signature=promise)
    assert not key.promised(payload, signature=b"")
    assert not key.signed(ProfileRecord, key="enrolment/1", payload=payload, signature=promise)
    _, record = key.sign(topic="t", type_="x", key="enrolment/1", payload=payload)
    assert not key.promised(payload, signature=record)
