"""The audit service's HTTP interface: who may read it, exports that run nothing, and who held what."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit import api as module
from services.audit.api import _csv, _safe_cell, routes
from services.audit.domain.ports import RecordQuery
from shared.events.access import AccessSubject, Phase
from shared.events.audit import AuditAction, AuditRecord
from tests.fakes.enrolled import read
from tests.fakes.journal import FakeJournal
from tests.fakes.readers import GROUPS, Reader, guard
from tests.unit.audit.accesses import AT, access, digest, item
from tests.unit.audit.test_trails import trail

WHO_DID = "/v1/references/hospital-a/db-url/who-did"


def at(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


@dataclass
class Office:
    """The interface on a journal in memory; `now` is the clock."""

    journal: FakeJournal = field(default_factory=FakeJournal)
    now: datetime = AT

    def __post_init__(self) -> None:
        self.reader = Reader(routes(self.journal.begin, lambda: self.now, guard()))
        self._prev, self._n = "0" * 64, 0

    async def say(self, phase: Phase, **more: Any) -> None:
        """The next record of a resolver."""
        record = access(phase, n=self._n, prev=self._prev, **more)
        self._prev, self._n = digest(record), self._n + 1
        await trail(self.journal).on_access((read(record, key=record.stream),))

    async def release(self, number: int, **more: Any) -> None:
        lease = item(lease_id=f"lease/{number:03}", version="3")
        await self.say(Phase.RELEASED, **({"items": (lease,)} | more))

    async def text(self, path: str, **query: Any) -> tuple[str, str]:
        reply = await self.reader.reply(path, **query)
        assert reply.status == 200
        return reply.body.decode(), reply.headers["content-type"]


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.mark.parametrize("path", ["/v1/records", "/v1/records?format=csv", "/v1/leases", WHO_DID])
@pytest.mark.parametrize(("group", "status"), GROUPS.items())
async def test_roles_decide(office: Office, path: str, group: str, status: int) -> None:
    assert (await office.reader.reply(path, group=group)).status == status


@pytest.mark.parametrize("path", ["/v1/records", "/v1/leases", WHO_DID])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_here_changes_anything(office: Office, path: str, method: str) -> None:
    assert (await office.reader.reply(path, method=method)).status == 405


@pytest.mark.parametrize(
    "target",
    [
        "/v1/records?limit=0",
        "/v1/records?limit=1001",
        "/v1/records?after=-1",
        f"/v1/records?after={2**63}",
        "/v1/records?since=2026-01-01T00:00:00",
        "/v1/records?action=nothing:like:it",
        "/v1/records?format=xml",
        "/v1/records?subject=",
        "/v1/records?subject=" + "x" * 257,
        "/v1/leases?reference=a%0Ab",
        "/v1/leases?open=maybe",
        "/v1/references/x/who-did?since=yesterday",
    ],
)
async def test_bad_input_is_400_and_not_quoted(office: Office, target: str) -> None:
    reply = await office.reader.reply(target)
    assert (reply.status, json.loads(reply.body)["status"]) == (400, 400)
    assert b"x" * 200 not in reply.body


async def test_pages_go_on_until_there_is_nothing_more(office: Office) -> None:
    for number in range(5):
        await office.release(number)
    seen, after = [], 0
    while True:
        page = await office.reader.get("/v1/records", limit=2, after=after)
        seen += [one["n"] for one in page["items"]]
        if page["next"] is None:
            break
        after = page["next"]
    assert seen == [1, 2, 3, 4, 5]


async def test_records_are_found_by_what_they_are_about(office: Office) -> None:
    await office.release(1)
    await office.say(Phase.REFUSED, reason="not-available")
    refused = await office.reader.get("/v1/records", action=AuditAction.ACCESS_REFUSED.value)
    assert [one["reason"] for one in refused["items"]] == ["not-available"]
    named = await office.reader.get("/v1/records", reference="hospital-a/db-url")
    assert [one["action"] for one in named["items"]] == [AuditAction.ACCESS_RELEASED]


async def test_an_export_is_everything_whatever_the_page(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a transaction a page, so that a reader who takes hours never holds one open."""
    monkeypatch.setattr(module, "PAGE_LIMIT", 2)
    for number in range(5):
        await office.release(number)
    before = office.journal.transactions
    text, kind = await office.text("/v1/records", format="jsonl", limit=1)
    assert [AuditRecord.model_validate_json(line).n for line in text.splitlines()] == [1, 2, 3, 4, 5]
    assert kind == "application/x-ndjson"
    assert office.journal.transactions - before == 3


async def test_a_table_names_its_columns_and_one_record_is_one_row(office: Office) -> None:
    await office.release(1, context='two\r\n"lines"')
    text, kind = await office.text("/v1/records", format="csv")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert kind == "text/csv; charset=utf-8"
    assert (row["n"], row["actor"], row["context"]) == ("1", "agent-a", 'two\r\n"lines"')
    assert row["references"] == "hospital-a/db-url@3"
    assert row["detail"] == "groups: nurses-a, night-shift"


async def test_an_empty_log_is_an_empty_table(office: Office) -> None:
    text, _ = await office.text("/v1/records", format="csv")
    assert text.startswith("log,n,at,action,")
    assert len(text.splitlines()) == 1
    assert (await office.text("/v1/records", format="jsonl"))[0] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
async def test_other_peoples_words_run_nothing_in_a_spreadsheet(office: Office, start: str) -> None:
    await office.release(
        1, server_name=f"{start}HYPERLINK(1)", subject=AccessSubject(idp_id="idp/1", subject=f"{start}x")
    )
    text, _ = await office.text("/v1/records", format="csv")
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["server_name"] == f"'{start}HYPERLINK(1)"
    assert row["actor"] == f"'{start}x"


@given(st.text(max_size=30))
async def test_every_text_comes_out_of_a_table_as_it_went_in_or_quoted(text: str) -> None:
    record = access(Phase.REFUSED).model_copy(update={"server_name": text})
    journal = FakeJournal()
    await trail(journal).on_access((read(record, key=record.stream),))

    async def found() -> Any:
        for one in await journal.records(RecordQuery()):
            yield one

    lines = [line async for line in _csv(found())]
    (row,) = csv.DictReader(io.StringIO("".join(lines), newline=""))
    assert row["server_name"] == _safe_cell(text)
    assert row["server_name"] in {text, "'" + text}


async def test_open_leases_are_those_that_somebody_may_hold_now(office: Office) -> None:
    await office.release(1)
    await office.say(Phase.AUTHORISED, items=(item(lease_id="lease/002"),))
    assert [one["lease_id"] for one in await leases(office)] == ["lease/001"]
    office.now = at(11)
    assert [one["lease_id"] for one in await leases(office)] == ["lease/001", "lease/002"], "presumed delivered"
    office.now = at(16 * 60)
    assert await leases(office) == []
    assert len(await leases(office, open="false")) == 2


async def leases(office: Office, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await office.reader.get("/v1/leases", **query))["items"]
    return found


async def test_a_lease_shows_whose_it_is_and_how_it_ended(office: Office) -> None:
    await office.say(Phase.AUTHORISED)
    await office.say(Phase.ABANDONED, reason="not-fresh")
    (one,) = await leases(office, open="false")
    assert (one["subject"], one["context"], one["reference_name"]) == ("agent-a", "hospital-a", "hospital-a/db-url")
    assert (one["released"], one["why"]) == (False, "abandoned")


async def test_leases_go_on_by_their_ids(office: Office) -> None:
    for number in range(3):
        await office.release(number)
    first = await office.reader.get("/v1/leases", limit=2)
    assert first["next"] == "lease/001"
    rest = await office.reader.get("/v1/leases", limit=2, after=first["next"])
    assert ([one["lease_id"] for one in rest["items"]], rest["next"]) == (["lease/002"], None)


async def test_who_did_counts_each_place_once_with_its_first_and_last_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_LIMIT", 2)
    for number, seconds in enumerate((30, 0, 60)):
        await office.release(number, at=at(seconds))
    await office.release(7, at=at(5), context="hospital-b")
    found = (await office.reader.get(WHO_DID))["items"]
    assert [(one["context"], one["times"]) for one in found] == [("hospital-a", 3), ("hospital-b", 1)]
    assert (found[0]["first_at"], found[0]["last_at"]) == (shown(at(0)), shown(at(60)))


def shown(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


async def test_who_did_leaves_out_what_was_withdrawn_and_keeps_what_must_be_presumed(office: Office) -> None:
    await office.say(Phase.AUTHORISED, items=(item(lease_id="lease/gone"),))
    await office.say(Phase.ABANDONED, items=(item(lease_id="lease/gone"),))
    await office.say(Phase.AUTHORISED, items=(item(lease_id="lease/silent"),))
    assert (await office.reader.get(WHO_DID))["items"] == [], "its outcome may still come"
    office.now = at(11)
    (one,) = (await office.reader.get(WHO_DID))["items"]
    assert one["times"] == 1


async def test_people_of_the_same_name_at_different_providers_are_different(office: Office) -> None:
    for number, idp in enumerate(("idp/1", "idp/2")):
        await office.release(number, subject=AccessSubject(idp_id=idp, subject="ada"))
    found = (await office.reader.get(WHO_DID))["items"]
    assert {(one["subject"], one["subject_idp"]) for one in found} == {("ada", "idp/1"), ("ada", "idp/2")}
