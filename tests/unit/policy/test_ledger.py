"""What one work writes, and that rows which policy did not sign are never shown, decided on or signed again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, ProgrammingError

from services.policy import ledger as ledgers
from services.policy.commands.outcomes import create, delete
from services.policy.domain.enrolments import EnrolmentRecord
from services.policy.domain.kinds import ENROLMENT, Kind, new_id
from services.policy.ledger import PgReading, PgWork
from services.policy.signing import PolicyKey
from services.policy.writing import TICK_ID
from shared.crypto.signing import SigningKey
from shared.errors import BadRequest, SignatureInvalid, Unavailable
from shared.events.changes import PolicyAction
from shared.events.policy import GrantRecord, MappingRecord, PolicyRecord, ProfileRecord, TickRecord
from shared.projection import digest
from tests.fakes.policy_store import FakeCommit, FakeStore
from tests.unit.policy.stories import ADA, NOON

HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Bench:
    """A key, a store, and works one after the other. `commits` are those that were written."""

    key: PolicyKey = field(default_factory=lambda: PolicyKey(SigningKey.generate()))
    store: FakeStore = field(default_factory=FakeStore)
    commits: list[FakeCommit] = field(default_factory=list)
    now: datetime = NOON

    async def do(self, act: Callable[[PgWork], Awaitable[Any]]) -> Any:
        commit = FakeCommit(len(self.commits) + 1)
        work = PgWork(self.store, self.key, self.now, commit=commit, actor=ADA)  # type: ignore[arg-type]
        result = await act(work)
        await work.write()
        self.commits.append(commit)
        return result

    async def profile(self, name: str) -> ProfileRecord:
        record = ProfileRecord(id=new_id(Kind.PROFILE), seq=len(self.commits) + 1, revision=1, name=name)
        return (await self.do(lambda work: create(work, record))).record

    async def mapping(self, profile: ProfileRecord) -> MappingRecord:
        record = MappingRecord(
            id=new_id(Kind.MAPPING),
            seq=len(self.commits) + 1,
            revision=1,
            idp_id="idp/1",
            group="g",
            profile_id=profile.id,
        )
        return (await self.do(lambda work: create(work, record))).record

    async def grant(self, **window: datetime) -> GrantRecord:
        record = GrantRecord(
            id=new_id(Kind.GRANT),
            seq=len(self.commits) + 1,
            revision=1,
            profile_id="profile/1",
            reference_id="reference/1",
            **window,
        )
        return (await self.do(lambda work: create(work, record))).record

    def reading(self) -> PgReading:
        return PgReading(self.store, self.key, self.now)  # type: ignore[arg-type]

    def digest(self) -> str:
        """Of all living records, from nothing: what a reader computes."""
        total = 0
        for row in self.store.rows.values():
            total = digest.add(total, digest.entry(row.id, row.payload))
        return digest.text(total)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_commit_holds_the_signed_record_and_the_event_that_names_it(bench: Bench) -> None:
    profile = await bench.profile("ward")
    (commit,) = bench.commits
    ((key, event_id, event),) = commit.events
    assert commit.records == [profile]
    assert (key, event_id) == (profile.id, event.id)  # type: ignore[attr-defined]
    payload = profile.to_json()
    assert bench.key.signed(ProfileRecord, key=profile.id, payload=payload, signature=commit.signatures[profile.id])
    assert bench.store.rows[profile.id].payload == payload


async def test_what_falls_is_said_in_the_same_commit_as_gone(bench: Bench) -> None:
    profile = await bench.profile("ward")
    mapping = await bench.mapping(profile)
    await bench.do(lambda work: delete(work, profile))
    said = {record.id: record for record in bench.commits[-1].records}
    assert {one for one, record in said.items() if record.deleted} == {profile.id, mapping.id}
    assert said[profile.id].revision == 2
    assert bench.store.rows == {}


async def test_a_work_that_says_nothing_about_an_entity_carries_a_tick(bench: Bench) -> None:
    """As an enrolment does: readers wait for the record that carries a commit's number."""

    async def promise(work: PgWork) -> None:
        work.add_enrolment(enrolment("a"))
        work.announce(PolicyAction.CREATED, kind=ENROLMENT, entity_id="enrolment/1")

    await bench.do(promise)
    (tick,) = bench.commits[-1].records
    assert isinstance(tick, TickRecord)
    assert (tick.id, tick.seq, tick.revision, tick.at) == (TICK_ID, 1, 1, NOON)


async def tick(work: PgWork) -> None:
    work.tick()


async def test_ticks_count_up_and_cover_all_that_lives(bench: Bench) -> None:
    await bench.profile("ward")
    await bench.do(tick)
    first = bench.commits[-1].records[-1]
    await bench.do(tick)
    second = bench.commits[-1].records[-1]
    assert isinstance(first, TickRecord)
    assert isinstance(second, TickRecord)
    assert (first.revision, second.revision) == (1, 2)
    assert first.digest == second.digest == bench.digest()


async def test_a_tick_comes_behind_what_its_commit_says_and_covers_it(bench: Bench) -> None:
    async def both(work: PgWork) -> None:
        record = ProfileRecord(id=new_id(Kind.PROFILE), seq=work.seq, revision=1, name="ward")
        await create(work, record)
        work.tick()

    await bench.do(both)
    assert [type(record) for record in bench.commits[-1].records] == [ProfileRecord, TickRecord]
    assert bench.commits[-1].records[-1].digest == bench.digest()  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=12))
def test_the_running_digest_is_always_that_of_what_lives(acts: list[tuple[str, bool]]) -> None:
    async def play() -> None:
        bench = Bench()
        for name, remove in acts:
            found = await bench.reading().find(ProfileRecord, name)
            if found is None:
                await bench.profile(name)
            elif remove:
                await bench.do(lambda work, found=found: delete(work, found))  # type: ignore[misc]
            else:
                changed = found.model_copy(update={"seq": len(bench.commits) + 1, "revision": found.revision + 1})
                await bench.do(lambda work, changed=changed: again(work, changed))  # type: ignore[misc]
            assert bench.store.now_standing.digest == bench.digest()

    asyncio.run(play())


async def again(work: PgWork, record: PolicyRecord) -> None:
    work.put(record)
    work.announce(PolicyAction.UPDATED, kind=Kind.PROFILE, entity_id=record.id)


async def test_nothing_of_ticks_is_due_before_nine_tenths_of_the_interval(bench: Bench) -> None:
    async def is_due(work: PgWork) -> bool:
        work.tick()
        return await work.is_tick_due(10.0)

    assert await bench.do(is_due)
    for after, due in ((0.0, False), (8.9, False), (9.0, True), (60.0, True)):
        bench.store.now_standing = bench.store.now_standing._replace(ticked_at=NOON)
        bench.now = NOON + timedelta(seconds=after)
        assert await bench.do(is_due) is due


async def test_a_grant_is_due_at_its_next_edge_and_one_without_a_window_never(bench: Bench) -> None:
    for window, due_at in (
        ({}, None),
        ({"ends_at": NOON + HOUR}, NOON + HOUR),
        ({"starts_at": NOON + HOUR, "ends_at": NOON + 2 * HOUR}, NOON + HOUR),
        ({"starts_at": NOON - HOUR, "ends_at": NOON + 2 * HOUR}, NOON + 2 * HOUR),
    ):
        grant = await bench.grant(**window)
        assert bench.store.rows[grant.id].due_at == due_at


CHANGES: dict[str, Callable[[Bench, ProfileRecord], None]] = {
    "content": lambda bench, one: bench.store.change(one.id, payload=one.to_json().replace(b"ward", b"Ward")),
    "spaces": lambda bench, one: bench.store.change(one.id, payload=one.to_json() + b" "),
    "signature": lambda bench, one: bench.store.change(one.id, signature=b"\0" * 64),
    "no signature": lambda bench, one: bench.store.change(one.id, signature=b""),
    "name": lambda bench, one: bench.store.change(one.id, natural_key="theirs"),
    "id": lambda bench, one: bench.store.change(one.id, id="profile/" + "0" * 32),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_row_that_somebody_changed_is_shown_nowhere(bench: Bench, what: str) -> None:
    profile = await bench.profile("ward")
    CHANGES[what](bench, profile)
    (row,) = bench.store.rows.values()
    with pytest.raises(SignatureInvalid):
        await bench.reading().get(ProfileRecord, row.id)
    with pytest.raises(SignatureInvalid):
        await bench.reading().find(ProfileRecord, row.natural_key)
    with pytest.raises(SignatureInvalid):
        await bench.reading().page(ProfileRecord, links=(), after=None, limit=1)
    with pytest.raises(SignatureInvalid):
        await bench.reading().names([row.id])


async def test_another_key_s_rows_are_nobody_s(bench: Bench) -> None:
    profile = await bench.profile("ward")
    bench.key = PolicyKey(SigningKey.generate())
    with pytest.raises(SignatureInvalid):
        await bench.reading().get(ProfileRecord, profile.id)
    with pytest.raises(SignatureInvalid):
        await bench.do(lambda work: work.standing(profile))


async def test_a_link_that_somebody_added_leads_nowhere(bench: Bench) -> None:
    mapping = await bench.mapping(await bench.profile("ward"))
    bench.store.links[mapping.id] |= {"group/stolen"}
    with pytest.raises(SignatureInvalid):
        await bench.reading().linked(MappingRecord, "group/stolen")
    with pytest.raises(SignatureInvalid):
        await bench.reading().page(MappingRecord, links=["group/stolen"], after=None, limit=1)


async def test_an_entity_of_another_kind_is_not_found_by_its_id(bench: Bench) -> None:
    profile = await bench.profile("ward")
    assert await bench.reading().get(GrantRecord, profile.id) is None
    assert await bench.reading().find(GrantRecord, profile.id) is None


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", "x" * 257, "\u202eward"])
async def test_a_name_that_nobody_can_have_is_not_even_looked_up(text: str) -> None:
    """PostgreSQL takes no NUL and no surrogate: asked about one, it would fail."""
    bench = Bench(store=object())  # type: ignore[arg-type]
    assert await bench.reading().find(ProfileRecord, text) is None
    assert await bench.reading().enrolment_by_name(text) is None


async def test_what_falls_is_deleted_under_its_own_id_whatever_its_row_says(bench: Bench) -> None:
    """Nobody gets policy to sign that another entity is gone by writing its id into a row that falls."""
    profile, victim = await bench.profile("ward"), await bench.profile("victim")
    mapping = await bench.mapping(profile)
    forged = mapping.model_copy(update={"id": victim.id})
    bench.store.change(mapping.id, payload=forged.to_json())
    receipt = await bench.do(lambda work: delete(work, profile))
    assert set(receipt.ended) == {profile.id, mapping.id}
    assert bench.store.rows.keys() == {victim.id}
    assert victim.id not in {record.id for record in bench.commits[-1].records}


async def test_pages_go_on_behind_the_last_one_and_end(bench: Bench) -> None:
    names = [f"ward-{number}" for number in range(5)]
    for name in names:
        await bench.profile(name)
    seen: list[str] = []
    after, pages = None, 0
    while pages < 9:
        page = await bench.reading().page(ProfileRecord, links=(), after=after, limit=2)
        seen += [one.name for one in page.items]
        after, pages = page.next, pages + 1
        if after is None:
            break
    assert (seen, pages) == (names, 3)


@given(st.text(max_size=60))
def test_a_cursor_that_nobody_gave_is_refused_and_is_no_failure(after: str) -> None:
    try:
        cursor = ledgers._cursor(after, Kind.PROFILE)
    except BadRequest:
        return
    assert cursor is not None
    assert 0 <= cursor.created_seq < 2**63
    assert cursor.id.startswith("profile/")


def test_a_cursor_reads_back_what_was_written() -> None:
    entity_id = new_id(Kind.PROFILE)
    assert ledgers._cursor(ledgers._position(7, entity_id), Kind.PROFILE) == (7, entity_id)
    assert ledgers._cursor(None, Kind.PROFILE) is None


def enrolment(token: str, name: str = "gateway-1") -> EnrolmentRecord:
    return EnrolmentRecord(
        id=new_id(ENROLMENT), name=name, token_sha256=token * 64, created_at=NOON, expires_at=NOON + HOUR
    )


async def promised(bench: Bench, token: str = "a") -> EnrolmentRecord:
    record = enrolment(token)

    async def act(work: PgWork) -> None:
        work.add_enrolment(record)
        work.announce(PolicyAction.CREATED, kind=ENROLMENT, entity_id=record.id)

    await bench.do(act)
    return record


async def test_a_promise_is_found_by_token_name_and_id_until_it_is_taken_back(bench: Bench) -> None:
    record = await promised(bench)
    reading = bench.reading()
    for found in (
        await reading.enrolment_by_token("a" * 64),
        await reading.enrolment_by_name("gateway-1"),
        await reading.enrolment_by_name(record.id.partition("/")[2]),
    ):
        assert found is not None
        assert found.record == record
    assert [one.record for one in (await reading.enrolment_page(after=None, limit=5)).items] == [record]

    async def take_back(work: PgWork) -> None:
        work.drop_enrolment(record.id)
        work.announce(PolicyAction.DELETED, kind=ENROLMENT, entity_id=record.id)

    await bench.do(take_back)
    assert await bench.reading().enrolment_by_token("a" * 64) is None


async def test_enrolments_are_paged_too(bench: Bench) -> None:
    records = [await promised(bench, token) for token in "abc"]
    first = await bench.reading().enrolment_page(after=None, limit=2)
    rest = await bench.reading().enrolment_page(after=first.next, limit=2)
    assert [one.record for one in (*first.items, *rest.items)] == records
    assert rest.next is None


@pytest.mark.parametrize("column", ["payload", "signature", "token_sha256", "id"])
async def test_a_promise_that_somebody_changed_lets_nobody_in(bench: Bench, column: str) -> None:
    record = await promised(bench)
    row = bench.store.enrolments.pop(record.id)
    changed: dict[str, Any] = {
        "payload": row.payload.replace(b'"allowed_servers":[]', b'"allowed_servers":["*"]'),
        "signature": b"\0" * 64,
        "token_sha256": "b" * 64,
        "id": "enrolment/" + "0" * 32,
    }
    row = replace(row, **{column: changed[column]})
    bench.store.enrolments[row.id] = row
    with pytest.raises(SignatureInvalid):
        await bench.reading().enrolment_by_token(row.token_sha256)


def failing(sqlstate: str | None) -> DBAPIError:
    class DriverError(Exception):
        pass

    error = DriverError("duplicate key value: (name)=(hunter2)")
    error.sqlstate = sqlstate  # type: ignore[attr-defined]
    return DBAPIError("SELECT 'hunter2'", {}, error)


@pytest.mark.parametrize("sqlstate", ["55P03", "57014", "40001", "40P01"])
def test_a_database_that_is_busy_is_unavailable_and_quotes_nothing(sqlstate: str) -> None:
    with pytest.raises(Unavailable) as failure, ledgers._database_errors():
        raise failing(sqlstate)
    assert "hunter2" not in failure.value.detail


@pytest.mark.parametrize(
    "error",
    [failing("23505"), failing(None), ProgrammingError("", {}, Exception()), TypeError("ours"), BadRequest("theirs")],
    ids=["unique", "none", "programming", "type", "refusal"],
)
def test_a_mistake_of_ours_is_not_called_an_outage(error: Exception) -> None:
    with pytest.raises(type(error)) as failure, ledgers._database_errors():
        raise error
    assert failure.value is error


def test_a_connection_that_breaks_is_an_outage() -> None:
    with pytest.raises(Unavailable), ledgers._database_errors():
        raise ConnectionResetError
