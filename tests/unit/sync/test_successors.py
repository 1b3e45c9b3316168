"""Which reference took the place of one that vanished."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.sync.domain.successors import MOST, WINDOW, Appeared, affordable, likely_successor
from shared.events.catalog import ReferenceRecord

GONE_AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


def reference(path: str, *, key: str | None = "dsn", source: str = "source/1") -> ReferenceRecord:
    name = f"{path}/{key}"
    return ReferenceRecord(
        id=f"reference/{abs(hash((source, name)))}",
        seq=1,
        revision=1,
        name=name[:256],
        source_id=source,
        path=path,
        key=key,
        version="1",
        changed_at=GONE_AT,
    )


def successor(gone: str, *appeared: ReferenceRecord, after: timedelta = timedelta(0)) -> str | None:
    found = likely_successor(reference(gone), GONE_AT, [Appeared(one, GONE_AT + after) for one in appeared])
    return None if found is None else found.path


def test_a_near_path_with_the_same_key_is_the_successor() -> None:
    assert successor("hospital-a/db", reference("hospital-a/database")) == "hospital-a/database"
    assert successor("hospital-a/db", reference("wards/hospital-a/db")) == "wards/hospital-a/db"
    assert successor("old/place/db-dsn", reference("new-home/db-dsn")) == "new-home/db-dsn"


def test_another_key_source_time_or_name_is_not() -> None:
    assert successor("hospital-a/db", reference("hospital-a/database", key="user")) is None
    assert successor("hospital-a/db", reference("hospital-a/database", source="source/2")) is None
    assert successor("hospital-a/db", reference("hospital-a/database"), after=WINDOW * 1.01) is None
    assert successor("hospital-a/db", reference("billing/stripe-token")) is None
    assert successor("hospital-a/db", reference("hospital-a/db")) is None
    assert successor("hospital-a/db") is None


def test_of_several_only_a_clear_winner_is_named() -> None:
    assert successor("team/db", reference("team/db-1"), reference("team/db-2")) is None
    assert successor("team/db", reference("team/db2"), reference("zoo/lions-and-tigers")) == "team/db2"


def can_afford(gone: list[ReferenceRecord], appeared: list[ReferenceRecord]) -> bool:
    return affordable(gone, [Appeared(one, GONE_AT) for one in appeared])


def test_a_moved_folder_and_a_renamed_secret_of_many_names_are_compared() -> None:
    folder = [f"hospital-a/department-of-radiology/{number}/database" for number in range(8)]
    assert can_afford([reference(path) for path in folder], [reference(f"new/{path}") for path in folder])
    keys = [f"key-{number}" for number in range(MOST)]
    assert can_afford([reference("a/db", key=key) for key in keys], [reference("a/db-2", key=key) for key in keys])


def test_more_pairs_than_a_commit_can_wait_for_are_not_compared() -> None:
    assert can_afford([reference("a")], [reference(f"{number}") for number in range(MOST)])
    assert not can_afford([reference("a")], [reference(f"{number}") for number in range(MOST + 1)])
    many = [reference(f"{number}/db") for number in range(300)]
    assert not can_afford(many, [reference(f"new/{one.path}") for one in many])


def test_paths_that_take_long_to_compare_are_not_compared() -> None:
    assert can_afford([reference("wards/hospital-a/db" * 10)], [reference("wards/hospital-b/db" * 10)])
    assert not can_afford([reference("a" * 4000)], [reference("a" * 3999)])
    # Short, and still the worst there is: every letter fits half of the other path, and no two in a row do.
    assert not can_afford([reference("ab" * 128)], [reference("a" * 256)])
    assert not can_afford([reference(f"{'ab' * 32}{one}") for one in range(10)], [reference("a" * 64)] * 20)
