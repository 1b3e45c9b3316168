"""A name that an administrator types is looked up in what sync has committed by then, or not answered at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from services.policy import catalog as catalogs
from services.policy.catalog import CatalogReferences, References, apply
from shared.bus.connection import KafkaSettings
from shared.bus.signatures import record_signer, to_header
from shared.crypto.signing import SigningKey
from shared.errors import Unavailable
from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.projection.changes import Upserted
from shared.projection.records import Authority, TypedRecord
from tests.unit.policy.stories import reference


class FakeProjection:
    """What the topic's reader has come to."""

    def __init__(self) -> None:
        self.snapshot = References()
        self.position = 0
        self.ready = True
        self.reason: str | None = None


class FakeReader:
    def __init__(self) -> None:
        self.end = 0
        self.error: Exception | None = None
        self.asked = 0

    async def end_offset(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.end


class Bench:
    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.references = CatalogReferences(
            KafkaSettings(), authority=Authority({self.key.key_id: self.key.verify_key})
        )
        self.projection, self.reader = FakeProjection(), FakeReader()
        self.references._projection = self.projection  # type: ignore[assignment]
        self.references._reader = self.reader  # type: ignore[assignment]

    def arrives(self, record: ReferenceRecord, *, key: SigningKey | None = None) -> None:
        payload = record.to_json()
        signer = record_signer(key or self.key)
        key_id, signature = signer(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        said: dict[str, Any] = {"topic": record.TOPIC, "key": record.id, "type": record.TYPE, "seq": record.seq}
        typed = TypedRecord(**said, record=record, payload=payload, signed=to_header(signature), key_id=key_id)
        self.projection.snapshot = apply(self.projection.snapshot, Upserted(typed))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(catalogs, "RELAY_LAG_S", 0.05)
    monkeypatch.setattr(catalogs, "CATCH_UP_WITHIN_S", 0.05)
    monkeypatch.setattr(catalogs, "_POLL_S", 0.001)
    return Bench()


async def test_what_is_known_is_answered_without_asking_the_broker(bench: Bench) -> None:
    one = reference("ward/db")
    bench.arrives(one)
    assert await bench.references.find("ward/db") == one
    assert await bench.references.find(one.id) == one
    assert bench.reader.asked == 0


async def test_a_name_that_is_on_its_way_is_waited_for(bench: Bench) -> None:
    bench.reader.end = 3
    one = reference("ward/db")
    looking = asyncio.create_task(bench.references.find("ward/db"))
    await asyncio.sleep(0.005)
    assert not looking.done()
    bench.arrives(one)
    bench.projection.position = 3
    assert await looking == one


async def test_a_name_that_sync_has_just_committed_may_still_be_on_its_way_to_the_topic(bench: Bench) -> None:
    one = reference("ward/db")
    looking = asyncio.create_task(bench.references.find("ward/db"))
    await asyncio.sleep(0.005)
    bench.arrives(one)
    assert await looking == one


async def test_a_name_that_nobody_has_is_none_once_everything_was_read(bench: Bench) -> None:
    assert await bench.references.find("absent") is None


@pytest.mark.parametrize("error", [KafkaConnectionError(), TimeoutError(), OSError(), Unavailable()])
async def test_a_name_is_not_called_absent_while_that_can_not_be_shown(bench: Bench, error: Exception) -> None:
    bench.reader.error = error
    with pytest.raises(Unavailable, match="catalog"):
        await bench.references.find("ward/db")


@pytest.mark.parametrize("lagging", ["position", "ready"])
async def test_a_reader_that_has_not_come_to_the_end_does_not_say_that_something_is_not_there(
    bench: Bench, lagging: str
) -> None:
    bench.reader.end = 3
    bench.projection.position = 2 if lagging == "position" else 3
    bench.projection.ready = lagging != "ready"
    with pytest.raises(Unavailable):
        await bench.references.find("ward/db")


async def test_a_record_that_sync_did_not_sign_is_not_there(bench: Bench) -> None:
    one = reference("ward/db")
    bench.arrives(one, key=SigningKey.generate())
    assert await bench.references.find("ward/db") is None
    assert bench.references.by_id(one.id) is None
    assert bench.references.name_of(one.id) == ""


@pytest.mark.parametrize("state", [ReferenceState.REMOVED, ReferenceState.RENAMED])
async def test_what_is_gone_can_not_be_granted_and_keeps_its_name_for_whoever_asks_what_it_was(
    bench: Bench, state: ReferenceState
) -> None:
    one = reference("ward/db").model_copy(update={"state": state})
    bench.arrives(one)
    assert await bench.references.find("ward/db") is None
    assert bench.references.by_id(one.id) is None
    assert bench.references.name_of(one.id) == "ward/db"


@pytest.mark.parametrize("state", [ReferenceState.UNREADABLE, ReferenceState.PENDING_DELETION])
async def test_what_may_come_back_can_be_granted(bench: Bench, state: ReferenceState) -> None:
    one = reference("ward/db").model_copy(update={"state": state})
    bench.arrives(one)
    assert await bench.references.find("ward/db") == one


def test_readiness_says_why_names_can_not_be_looked_up(bench: Bench) -> None:
    bench.projection.reason = "reading the topic"
    assert bench.references.reason == "reading the topic"
    assert bench.references.name_of("reference/none") == ""
