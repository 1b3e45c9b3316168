"""Which reference took the place of one that vanished."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.sync.domain.successors import WINDOW, Appeared, likely_successor
from shared.events.catalog import ReferenceRecord

GONE_AT = datetime(2026, 6, 1, 12, tzinfo=UTC)


def reference(path: str, *, key: str | None = "dsn", source: str = "source/1") -> ReferenceRecord:
    name = f"{path}/{key}"
    return ReferenceRecord(
        id=f"reference/{abs(hash((source, name)))}",
        seq=1,
        revision=1,
        name=name,
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
