"""What goes into columns, and how a question becomes a condition: without a database."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from sqlalchemy import ColumnElement, and_, true
from sqlalchemy.dialects import postgresql

from services.audit.domain.entries import Entry, access_entry
from services.audit.domain.leases import Opened, facts_of
from services.audit.domain.ports import LOG, LeaseQuery, RecordQuery
from services.audit.store import _lease_conditions, _mention_rows, _record_conditions, _record_row, _row
from services.audit.tables import METADATA, endings, leases, mentions, records
from shared.events.access import AccessSubject, Phase
from tests.unit.audit.accesses import AT, access, item

NUL = "a\0b"


def entry(**more: object) -> Entry:
    return access_entry(access(**more), digest="d")  # type: ignore[arg-type]


def row(one: Entry) -> dict[str, object]:
    record = one.numbered(LOG, 7)
    return _record_row(one, record, record.to_json())


def test_every_column_of_a_record_has_a_value() -> None:
    assert set(row(entry())) == {column.name for column in records.c}
    assert set(next(iter(_mention_rows(entry().numbered(LOG, 7))))) == {column.name for column in mentions.c}


def test_every_column_of_a_lease_has_a_value() -> None:
    (opened,) = facts_of(access())
    assert isinstance(opened, Opened)
    assert set(_row(opened)) == {column.name for column in leases.c}


@pytest.mark.parametrize("place", ["subject", "instance_name"])
def test_a_character_that_no_column_can_hold_loses_no_record(place: str) -> None:
    """PostgreSQL's text has no NUL. A subject's name is its provider's, and the record itself is kept as it came."""
    more = {"subject": AccessSubject(idp_id="idp/1", subject=NUL)} if place == "subject" else {place: NUL}
    made = row(entry(**more))
    assert not [name for name, value in made.items() if isinstance(value, str) and "\0" in value]
    assert made["actor" if place == "subject" else place] == "a\ufffdb"
    assert b"a\\u0000b" in bytes(made["payload"])  # type: ignore[call-overload]


def test_neither_does_it_lose_a_mention_or_a_lease() -> None:
    record = access(Phase.RELEASED, items=(item(reference_name=NUL),), context=NUL)
    (mention,) = _mention_rows(access_entry(record, digest="d").numbered(LOG, 7))
    assert mention["reference_name"] == "a\ufffdb"
    (opened,) = facts_of(record)
    assert isinstance(opened, Opened)
    assert (_row(opened)["context"], _row(opened)["reference_name"]) == ("a\ufffdb", "a\ufffdb")


def sql(conditions: Iterable[ColumnElement[bool]]) -> str:
    """The conditions as PostgreSQL would read them, with their values in place."""
    joined = and_(true(), *conditions)
    return str(joined.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))


def test_without_filters_only_the_place_in_the_list_counts() -> None:
    assert sql(_record_conditions(RecordQuery(after=7))) == "records.n > 7"
    assert list(_lease_conditions(LeaseQuery(), endings.c.at)) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (RecordQuery(subject="ada"), "records.actor = 'ada'"),
        (RecordQuery(instance="g"), "(records.instance_id = 'g' OR records.instance_name = 'g')"),
        (RecordQuery(reference="r"), "mentions.reference_id = 'r' OR mentions.reference_name = 'r'"),
        (RecordQuery(since=AT), "records.at >= "),
        (RecordQuery(until=AT), "records.at < "),
        (RecordQuery(subject="' OR 1=1 --"), "records.actor = ''' OR 1=1 --'"),
    ],
)
def test_each_filter_of_records_narrows_by_its_own_column(query: RecordQuery, expected: str) -> None:
    assert expected in sql(_record_conditions(query))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LeaseQuery(reference="r"), "leases.reference_id = 'r' OR leases.reference_name = 'r'"),
        (LeaseQuery(instance="g"), "leases.instance_id = 'g' OR leases.instance_name = 'g'"),
        (LeaseQuery(since=AT), "least(leases.expires_at, endings.at) > "),
        (LeaseQuery(until=AT), "leases.opened_at < "),
        (LeaseQuery(given_by=AT), "leases.released OR leases.opened_at < '2026-11-23 08:29:50+00:00'"),
        (LeaseQuery(open_at=AT), "endings.at IS NULL OR endings.at > "),
    ],
)
def test_each_filter_of_leases_narrows_by_its_own_column(query: LeaseQuery, expected: str) -> None:
    assert expected in sql(_lease_conditions(query, endings.c.at))


def test_the_tables_are_those_that_the_module_names() -> None:
    named = {"counter", "records", "mentions", "streams", "leases", "endings", "echoes", "assertions"}
    assert set(METADATA.tables) == named
