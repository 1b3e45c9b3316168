"""An assertion that two requests came with is an alarm, wherever they came; everything else is none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.audit.domain.sightings import KEPT, SEEN_TWICE, repetitions, sighting_of, twice_entry
from services.audit.handlers import AccessTrail
from shared.events.access import FIRST_PREV, AccessRecord, Phase
from shared.events.audit import AuditAction
from tests.fakes.enrolled import read
from tests.fakes.journal import FakeJournal
from tests.thoroughness import examples
from tests.unit.audit.accesses import AT, access, digest

TORN, OTHER = "ab" * 32, "cd" * 32


@dataclass
class Replica:
    """One stream of one resolver."""

    name: str
    n: int = 0
    prev: str = FIRST_PREV

    def says(
        self, resolution: str, assertion: str = TORN, phase: Phase = Phase.AUTHORISED, **more: Any
    ) -> AccessRecord:
        stream = f"access/{self.name}/1"
        fields = {"id": f"{stream}/{self.n}", "stream": stream, "resolution_id": resolution, "assertion": assertion}
        record = access(phase, n=self.n, prev=self.prev, **(fields | more))
        self.n, self.prev = self.n + 1, digest(record)
        return record


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


async def tell(journal: FakeJournal, *records: AccessRecord, later: timedelta = timedelta()) -> None:
    trail = AccessTrail(journal.begin, lambda: AT + later)
    await trail.on_access(tuple(read(one, key=one.stream) for one in records))


def alarms(journal: FakeJournal) -> list[tuple[str, str]]:
    found = [one for one in journal.entries.values() if one.reason == SEEN_TWICE]
    assert all((one.action, one.decision) == (AuditAction.ALERT_RAISED, "critical") for one in found)
    return [(one.instance_id, one.cause.id) for one in found]


async def test_one_that_two_replicas_released_for_is_told(journal: FakeJournal) -> None:
    await tell(journal, Replica("resolver-1").says("resolution/1"))
    second = Replica("resolver-2").says("resolution/2")
    await tell(journal, second)
    assert alarms(journal) == [("instance/1", second.id)]


async def test_so_is_one_that_the_same_replica_refused(journal: FakeJournal) -> None:
    replica = Replica("resolver-1")
    await tell(journal, replica.says("resolution/1"))
    await tell(journal, replica.says("resolution/2", phase=Phase.REFUSED, reason="assertion-invalid:replayed"))
    assert len(alarms(journal)) == 1


async def test_both_sights_in_one_batch_are_told_as_well(journal: FakeJournal) -> None:
    await tell(journal, Replica("resolver-1").says("resolution/1"), Replica("resolver-2").says("resolution/2"))
    assert len(alarms(journal)) == 1


async def test_each_further_sight_is_told(journal: FakeJournal) -> None:
    for number in range(4):
        await tell(journal, Replica(f"resolver-{number}").says(f"resolution/{number}"))
    assert len(alarms(journal)) == 3


async def test_the_outcome_of_a_request_is_no_second_sight(journal: FakeJournal) -> None:
    replica = Replica("resolver-1")
    await tell(journal, replica.says("resolution/1"), replica.says("resolution/1", phase=Phase.RELEASED))
    await tell(journal, replica.says("resolution/3", OTHER), replica.says("resolution/3", OTHER, Phase.ABANDONED))
    assert alarms(journal) == []


async def test_a_record_that_is_delivered_again_is_no_second_sight(journal: FakeJournal) -> None:
    record = Replica("resolver-1").says("resolution/1")
    await tell(journal, record)
    await tell(journal, record)
    assert alarms(journal) == []


async def test_the_alarm_is_raised_once_however_often_its_record_is_delivered(journal: FakeJournal) -> None:
    first, second = Replica("resolver-1").says("resolution/1"), Replica("resolver-2").says("resolution/2")
    for _ in range(2):
        await tell(journal, first, second)
    assert len(alarms(journal)) == 1


async def test_records_without_an_assertion_have_nothing_in_common(journal: FakeJournal) -> None:
    await tell(journal, Replica("resolver-1").says("resolution/1", ""), Replica("resolver-2").says("resolution/2", ""))
    assert alarms(journal) == []
    assert journal.assertions == {}


async def test_what_can_not_be_valid_any_more_is_forgotten(journal: FakeJournal) -> None:
    await tell(journal, Replica("resolver-1").says("resolution/1"))
    await tell(journal, Replica("resolver-2").says("resolution/2", OTHER), later=KEPT + timedelta(seconds=1))
    assert set(journal.assertions) == {OTHER}


async def test_a_batch_that_failed_saw_nothing(journal: FakeJournal) -> None:
    journal.failing = [RuntimeError("away")]
    with pytest.raises(RuntimeError):
        await tell(journal, Replica("resolver-1").says("resolution/1"))
    assert journal.assertions == {}


def test_memory_outlasts_the_longest_assertion() -> None:
    # 60 s of life, 10 s of a clock that is ahead, and minutes for a partition that is read late.
    assert timedelta(seconds=70) * 5 < KEPT


def test_the_alarm_names_the_record_and_no_more() -> None:
    record = Replica("resolver-2").says("resolution/2", instance_id=None, instance_name="")
    entry = twice_entry(record, at=AT)
    assert (entry.entity_id, entry.instance_id, entry.cause.key) == (record.stream, "", f"{record.id}/{SEEN_TWICE}")
    assert TORN not in entry.detail


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(Phase)), max_size=30))
@settings(max_examples=examples(200))
def test_exactly_the_later_requests_with_an_assertion_are_repetitions(drawn: list[tuple[int, int, Phase]]) -> None:
    records = [
        access(phase, n=place, resolution_id=f"resolution/{request}", assertion=f"{assertion:064x}")
        for place, (assertion, request, phase) in enumerate(drawn)
    ]
    owner: dict[str, str] = {}
    expected = []
    for record in records:
        if (sighting := sighting_of(record)) is None:
            continue
        if owner.setdefault(sighting.assertion, sighting.resolution_id) != sighting.resolution_id:
            expected.append(record)
    found = repetitions(records, {})
    assert found == expected
    assert not any(one.phase in {Phase.RELEASED, Phase.ABANDONED} for one in found)
