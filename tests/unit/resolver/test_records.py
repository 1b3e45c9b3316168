"""Records are numbered without gaps and chained, whatever fails; and nothing rests on one that may not be there."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator

import pytest

from services.resolver import records
from services.resolver.entries import Entry
from services.resolver.records import AccessRecorder, Draft
from shared.errors import RecordFailed
from shared.events.access import FIRST_PREV, AccessRecord, Phase
from tests.fakes.access_topic import FakeBroker
from tests.waiting import until

DEADLINE_S = 0.2


def entry(name: str, phase: Phase = Phase.AUTHORISED) -> Entry:
    return Entry(phase=phase, resolution_id=f"resolution/{name}")


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
async def recorder(broker: FakeBroker) -> AsyncIterator[AccessRecorder]:
    made = AccessRecorder(broker.producer, replica_id="r1", record_deadline_s=DEADLINE_S)
    running = asyncio.create_task(made.run())
    await until(lambda: made.trouble is None)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def write(recorder: AccessRecorder, name: str) -> records.Position:
    return await recorder.durable(recorder.write(entry(name)))


def names(broker: FakeBroker) -> list[str]:
    return [record.resolution_id.partition("/")[2] for record in broker.records()]


def streams(broker: FakeBroker) -> list[list[AccessRecord]]:
    """Every stream by itself; each must be numbered from 0 without gaps, and chained."""
    by_stream: dict[str, list[AccessRecord]] = {}
    for record in broker.records():
        by_stream.setdefault(record.stream, []).append(record)
    payloads = {record.id: payload for record, payload in zip(broker.records(), broker.topic, strict=True)}
    for stream in by_stream.values():
        assert [record.n for record in stream] == list(range(len(stream)))
        assert stream[0].prev == FIRST_PREV
        for before, record in itertools.pairwise(stream):
            assert record.prev == hashlib.sha256(payloads[before.id]).hexdigest()
    return list(by_stream.values())


async def test_records_are_numbered_and_chained(recorder: AccessRecorder, broker: FakeBroker) -> None:
    positions = [await write(recorder, str(number)) for number in range(5)]
    (stream,) = streams(broker)
    assert [position.n for position in positions] == [0, 1, 2, 3, 4]
    assert positions[-1].hash == hashlib.sha256(broker.topic[-1]).hexdigest()
    assert stream[0].stream.startswith("access/r1/")


async def test_what_is_said_at_once_goes_together(recorder: AccessRecorder, broker: FakeBroker) -> None:
    broker.by_hand = True
    drafts = [recorder.write(entry(str(number))) for number in range(50)]
    await until(lambda: broker.waiting)
    late = [recorder.write(entry(f"late-{number}")) for number in range(30)]
    for _ in range(2):
        await until(lambda: broker.waiting)
        broker.acknowledge()
        await asyncio.sleep(0)
    await asyncio.gather(*(recorder.durable(draft) for draft in drafts + late))
    assert broker.batches == [50, 30]
    streams(broker)


async def test_a_batch_that_is_full_leaves_the_rest_for_the_next(broker: FakeBroker, recorder: AccessRecorder) -> None:
    broker.room = 4
    drafts = [recorder.write(entry(str(number))) for number in range(10)]
    await asyncio.gather(*(recorder.durable(draft) for draft in drafts))
    assert broker.batches == [4, 4, 2]
    assert [record.n for record in streams(broker)[0]] == list(range(10))


async def test_a_broker_that_is_away_is_a_failure_within_the_deadline(
    recorder: AccessRecorder, broker: FakeBroker
) -> None:
    broker.by_hand = True
    with pytest.raises(RecordFailed):
        await write(recorder, "lost")


async def test_a_record_given_up_while_it_waited_leaves_no_hole(recorder: AccessRecorder, broker: FakeBroker) -> None:
    broker.by_hand = True
    stuck = recorder.write(entry("stuck"))
    await until(lambda: broker.waiting)
    given_up = recorder.write(entry("given-up"))
    for draft in (stuck, given_up):
        with pytest.raises(RecordFailed):
            await recorder.durable(draft)
    assert (stuck.numbered, given_up.numbered) == (True, False)
    broker.by_hand = False
    broker.acknowledge()
    await write(recorder, "next")
    assert names(broker) == ["stuck", "next"]
    streams(broker)


async def test_an_uncertain_record_is_voided_by_the_next_of_its_stream(
    recorder: AccessRecorder, broker: FakeBroker
) -> None:
    broker.by_hand = True
    with pytest.raises(RecordFailed):
        await write(recorder, "a")
    recorder.write(entry("a", Phase.ABANDONED), kept=True)
    broker.by_hand = False
    broker.acknowledge()
    await recorder.flush()
    (stream,) = streams(broker)
    assert [(record.resolution_id, record.phase) for record in stream] == [
        ("resolution/a", Phase.AUTHORISED),
        ("resolution/a", Phase.ABANDONED),
    ]


@pytest.mark.parametrize("landed", [True, False])
async def test_after_a_failure_for_good_a_new_stream_begins_and_outcomes_are_said_again(
    recorder: AccessRecorder, broker: FakeBroker, *, landed: bool
) -> None:
    await write(recorder, "before")
    broker.by_hand = True
    authorised = recorder.write(entry("authorised"))
    recorder.write(entry("released", Phase.RELEASED), kept=True)
    await until(lambda: broker.waiting)
    waiting = recorder.write(entry("waiting"))
    broker.by_hand = False
    broker.fail(landed=landed)
    with pytest.raises(RecordFailed):
        await recorder.durable(authorised)
    assert (await recorder.durable(waiting)).n == 1
    await recorder.flush()
    old, new = streams(broker)
    assert [record.resolution_id for record in new] == ["resolution/released", "resolution/waiting"]
    assert len(old) == (3 if landed else 1)
    assert broker.producers == 2


async def test_an_outcome_waits_for_company_but_not_for_ever(recorder: AccessRecorder, broker: FakeBroker) -> None:
    recorder.write(entry("released", Phase.RELEASED), kept=True)
    await asyncio.sleep(0)
    assert broker.batches == []
    await write(recorder, "authorised")
    assert broker.batches == [2]
    recorder.write(entry("alone", Phase.RELEASED), kept=True)
    await until(lambda: broker.batches == [2, 1])


async def test_an_outcome_survives_that_nobody_waits_for_it(recorder: AccessRecorder, broker: FakeBroker) -> None:
    broker.by_hand = True
    stuck = recorder.write(entry("stuck"))
    await until(lambda: broker.waiting)
    outcome = recorder.write(entry("outcome", Phase.RELEASED), kept=True)
    outcome.done.cancel()
    stuck.done.cancel()
    broker.by_hand = False
    broker.acknowledge()
    await recorder.flush()
    assert names(broker) == ["stuck", "outcome"]


async def test_too_many_waiting_are_refused_at_once_but_those_given_up_make_room(
    recorder: AccessRecorder, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_WAITING", 3)
    broker.by_hand = True
    recorder.write(entry("under-way"))
    await until(lambda: broker.waiting)
    drafts: list[Draft] = [recorder.write(entry(str(number))) for number in range(3)]
    refused = recorder.write(entry("one-too-many"))
    with pytest.raises(RecordFailed):
        await recorder.durable(refused)
    drafts[1].done.cancel()
    assert not recorder.write(entry("room")).done.done()


async def test_a_clean_end_leaves_nothing_unsaid(broker: FakeBroker, recorder: AccessRecorder) -> None:
    for number in range(7):
        recorder.write(entry(str(number), Phase.RELEASED), kept=True)
    await recorder.flush()
    assert len(broker.topic) == 7
