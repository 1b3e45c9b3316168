"""Whatever is done to a stream shows, and nothing that is allowed does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.audit.domain.streams import (
    BEFORE_FIRST,
    BROKEN,
    FORK,
    GAP,
    LATE,
    Broken,
    Continues,
    Forked,
    Head,
    Repeated,
    broken_entry,
    follow,
)
from shared.events.access import AccessRecord
from tests.unit.audit.accesses import AT, access, chain, digest

LENGTH = 6


def findings(records: list[AccessRecord]) -> list[str]:
    """What is found when records are read in this order, repetitions left out."""
    head, recorded, found = BEFORE_FIRST, dict[int, str](), list[str]()
    for record in records:
        match follow(head, record, digest=digest(record), recorded=recorded.get(record.n)):
            case Repeated():
                continue
            case Forked():
                found.append(FORK)
                continue
            case Broken(head, reason, _):
                found.append(reason)
            case Continues(head):
                pass
        recorded[record.n] = digest(record)
    return found


def test_a_whole_stream_is_whole() -> None:
    assert findings(chain(LENGTH)) == []


@given(st.data())
def test_repetitions_show_nothing(data: st.DataObject) -> None:
    records, read = chain(LENGTH), list[AccessRecord]()
    for record in records:
        read.append(record)
        read += data.draw(st.lists(st.sampled_from(read), max_size=3))
    assert findings(read) == []


@given(missing=st.sets(st.integers(0, LENGTH - 2), min_size=1))
def test_whatever_is_missing_before_the_last_record_shows(missing: set[int]) -> None:
    found = findings([record for record in chain(LENGTH) if record.n not in missing])
    assert found
    assert set(found) == {GAP}


@given(missing=st.integers(0, LENGTH - 2))
def test_what_comes_late_is_said_to_be_late(missing: int) -> None:
    records = chain(LENGTH)
    late = records.pop(missing)
    assert findings([*records, late]) == [GAP, LATE]


@given(changed=st.integers(0, LENGTH - 2))
def test_a_record_that_was_changed_shows_at_the_next_one(changed: int) -> None:
    records = chain(LENGTH)
    records[changed] = records[changed].model_copy(update={"reason": "changed"})
    assert findings(records) == [BROKEN]


@given(twice=st.integers(0, LENGTH - 1))
def test_one_number_with_two_contents_is_a_fork(twice: int) -> None:
    records = chain(LENGTH)
    assert findings([*records, records[twice].model_copy(update={"reason": "changed"})]) == [FORK]


def test_a_stream_must_begin_at_its_beginning() -> None:
    assert findings([access(n=0, prev="f" * 64)]) == [BROKEN]
    assert findings([access(n=3, prev="f" * 64)]) == [GAP]


def test_a_record_from_before_hashes_were_kept_counts_as_repeated() -> None:
    assert follow(Head(0, ""), access(n=0), digest="x", recorded="") == Repeated()


def test_the_same_finding_has_the_same_cause() -> None:
    one, same, other = (
        broken_entry(access(n=4), reason=reason, detail=detail, at=AT)
        for reason, detail in ((GAP, "a"), (GAP, "b"), (LATE, "a"))
    )
    assert one.cause == same.cause
    assert one.cause.key != other.cause.key
