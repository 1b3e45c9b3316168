"""What commands rely on, whatever keeps the entities."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.policy.domain.enrolments import EnrolmentRecord, EnrolmentState
from services.policy.domain.kinds import Kind, new_id
from services.policy.domain.ports import Ledger, Work
from shared.errors import BadRequest
from shared.events.changes import Actor, PolicyAction
from shared.events.policy import GrantRecord, MappingRecord, ProfileRecord

ADA = Actor(idp="idp/administrators", subject="ada")


def profile(work: Work, name: str) -> ProfileRecord:
    return ProfileRecord(id=new_id(Kind.PROFILE), seq=work.seq, revision=1, name=name)


def mapping(work: Work, profile_id: str, group: str = "g") -> MappingRecord:
    return MappingRecord(
        id=new_id(Kind.MAPPING), seq=work.seq, revision=1, idp_id="idp/x", group=group, profile_id=profile_id
    )


async def create(ledger: Ledger, name: str) -> ProfileRecord:
    async with ledger.open(ADA) as work:
        record = profile(work, name)
        work.put(record)
        work.announce(PolicyAction.CREATED, kind=Kind.PROFILE, entity_id=record.id, name=name)
    return record


async def test_what_was_put_is_found_by_id_and_by_name(ledger: Ledger) -> None:
    record = await create(ledger, "hospital-a")
    async with ledger.read() as reading:
        for text in (record.id, record.id.removeprefix("profile/"), "hospital-a"):
            assert await reading.find(ProfileRecord, text) == record
        for text in ("hospital-b", "HOSPITAL-A", "", "a\0", "profile/" + "0" * 32, "grant/" + record.id[-32:]):
            assert await reading.find(ProfileRecord, text) is None


async def test_an_id_of_another_kind_is_not_found(ledger: Ledger) -> None:
    record = await create(ledger, "hospital-a")
    async with ledger.read() as reading:
        assert await reading.get(GrantRecord, record.id) is None


async def test_commits_are_numbered_without_gaps_and_works_that_say_nothing_take_no_number(ledger: Ledger) -> None:
    first = await create(ledger, "one")
    async with ledger.open(ADA) as work:
        assert work.seq == first.seq + 1
    second = await create(ledger, "two")
    assert second.seq == first.seq + 1


async def test_a_work_that_fails_leaves_nothing(ledger: Ledger) -> None:
    async def fail() -> None:
        async with ledger.open(ADA) as work:
            record = profile(work, "lost")
            work.put(record)
            work.announce(PolicyAction.CREATED, kind=Kind.PROFILE, entity_id=record.id)
            raise BadRequest("no")

    with pytest.raises(BadRequest):
        await fail()
    async with ledger.read() as reading:
        assert await reading.find(ProfileRecord, "lost") is None
    assert (await create(ledger, "next")).seq == 1


async def test_works_are_serial(ledger: Ledger) -> None:
    """Whoever comes second sees what the first one did, however they are started."""
    await create(ledger, "zero")

    async def claim(number: int) -> bool:
        async with ledger.open(ADA) as work:
            if await work.find(ProfileRecord, "claimed") is not None:
                return False
            record = profile(work, "claimed").model_copy(update={"description": str(number)})
            await asyncio.sleep(0)
            work.put(record)
            work.announce(PolicyAction.CREATED, kind=Kind.PROFILE, entity_id=record.id)
            return True

    assert sorted(await asyncio.gather(*map(claim, range(4)))) == [False, False, False, True]


async def test_standing_is_found_by_natural_key_with_its_receipt(ledger: Ledger) -> None:
    record = await create(ledger, "hospital-a")
    async with ledger.open(ADA) as work:
        found = await work.standing(profile(work, "hospital-a"))
        assert found is not None
        standing, receipt = found
        assert standing == record
        assert (receipt.entity_id, receipt.seq) == (record.id, record.seq)
        assert receipt.event_id.startswith("change/")
        assert await work.standing(profile(work, "hospital-b")) is None


async def test_links_find_what_has_all_of_them_oldest_first(ledger: Ledger) -> None:
    one, two = await create(ledger, "one"), await create(ledger, "two")
    made = []
    for target, group in ((one, "g"), (two, "g"), (one, "h")):
        async with ledger.open(ADA) as work:
            record = mapping(work, target.id, group)
            work.put(record)
            work.announce(PolicyAction.CREATED, kind=Kind.MAPPING, entity_id=record.id)
            made.append(record)
    async with ledger.open(ADA) as work:
        assert await work.linked(MappingRecord, one.id) == (made[0], made[2])
        assert await work.linked(MappingRecord, one.id, two.id) == ()
        assert await work.linked(MappingRecord, "idp/x", two.id) == (made[1],)
        assert await work.linked(GrantRecord, one.id) == ()
        assert await work.falling(one.id, {Kind.MAPPING, Kind.GRANT}) == (made[0], made[2])
        assert await work.falling(one.id, {Kind.GRANT}) == ()
        assert await work.falling(one.id, ()) == ()


async def test_what_was_deleted_is_gone_and_its_name_is_free(ledger: Ledger) -> None:
    record = await create(ledger, "hospital-a")
    async with ledger.open(ADA) as work:
        work.delete(record)
        work.announce(PolicyAction.DELETED, kind=Kind.PROFILE, entity_id=record.id)
    async with ledger.read() as reading:
        assert await reading.find(ProfileRecord, "hospital-a") is None
        assert await reading.names([record.id]) == {}
    assert (await create(ledger, "hospital-a")).id != record.id


async def test_an_update_keeps_its_place_in_lists(ledger: Ledger) -> None:
    records = [await create(ledger, name) for name in ("a", "b", "c")]
    async with ledger.open(ADA) as work:
        changed = records[0].model_copy(update={"seq": work.seq, "revision": 2, "name": "z"})
        work.put(changed)
        work.announce(PolicyAction.UPDATED, kind=Kind.PROFILE, entity_id=changed.id)
    async with ledger.read() as reading:
        page = await reading.page(ProfileRecord, links=(), after=None, limit=2)
        assert [one.name for one in page.items] == ["z", "b"]
        rest = await reading.page(ProfileRecord, links=(), after=page.next, limit=2)
        assert ([one.name for one in rest.items], rest.next) == (["c"], None)
        assert await reading.names([records[0].id, records[1].id, "x"]) == {records[0].id: "z", records[1].id: "b"}


@pytest.mark.parametrize("after", ["", "x", "1.x", "-1." + "0" * 32, "9" * 30 + "." + "0" * 32])
async def test_a_cursor_that_no_page_gave_is_refused(ledger: Ledger, after: str) -> None:
    async with ledger.read() as reading:
        with pytest.raises(BadRequest):
            await reading.page(ProfileRecord, links=(), after=after, limit=1)


async def test_a_work_is_announced_once(ledger: Ledger) -> None:
    async with ledger.open(ADA) as work:
        work.announce(PolicyAction.CREATED, kind=Kind.PROFILE, entity_id="profile/1")
        with pytest.raises(ValueError, match="once"):
            work.announce(PolicyAction.CREATED, kind=Kind.PROFILE, entity_id="profile/2")


def promise(now: datetime, name: str, token: str) -> EnrolmentRecord:
    return EnrolmentRecord(
        id=new_id("enrolment"),
        name=name,
        token_sha256=token * 64,
        created_at=now,
        expires_at=now + timedelta(hours=1),
    )


async def test_promises_are_kept_used_and_taken_back(ledger: Ledger) -> None:
    async with ledger.open(ADA) as work:
        record = promise(work.now, "gateway-1", "a")
        work.add_enrolment(record)
        receipt = work.announce(PolicyAction.CREATED, kind="enrolment", entity_id=record.id, name=record.name)
    async with ledger.read() as reading:
        for found in (await reading.enrolment_by_token("a" * 64), await reading.enrolment_by_name("gateway-1")):
            assert found is not None
            assert (found.record, found.seq, found.event_id) == (record, receipt.seq, receipt.event_id)
            assert found.state(reading.now) is EnrolmentState.OPEN
        assert await reading.enrolment_by_token("b" * 64) is None
        assert [one.record for one in (await reading.enrolment_page(after=None, limit=9)).items] == [record]
    async with ledger.open(ADA) as work:
        work.use_enrolment(record.id, instance_id="instance/1")
        work.announce(PolicyAction.CREATED, kind=Kind.INSTANCE, entity_id="instance/1")
    async with ledger.read() as reading:
        used = await reading.enrolment_by_name(record.id)
        assert used is not None
        assert used.state(reading.now) is EnrolmentState.USED
    async with ledger.open(ADA) as work:
        work.drop_enrolment(record.id)
        work.announce(PolicyAction.DELETED, kind="enrolment", entity_id=record.id)
    async with ledger.read() as reading:
        assert await reading.enrolment_by_name("gateway-1") is None


async def test_of_two_promises_by_one_name_the_newer_counts(ledger: Ledger) -> None:
    for token in "ab":
        async with ledger.open(ADA) as work:
            record = promise(work.now, "gateway-1", token)
            work.add_enrolment(record)
            work.announce(PolicyAction.CREATED, kind="enrolment", entity_id=record.id)
    async with ledger.read() as reading:
        found = await reading.enrolment_by_name("gateway-1")
    assert found is not None
    assert found.record.token_sha256 == "b" * 64


async def test_moments_have_a_time_zone(ledger: Ledger) -> None:
    async with ledger.open(ADA) as work:
        assert work.now.tzinfo is not None
        assert abs((work.now - datetime.now(UTC)).total_seconds()) < 60
