"""Who holds what: opened by records, ended by the instance's own signed word or by expiry."""

from __future__ import annotations

from shared.crypto.signing import SigningKey
from shared.events.access import Phase
from shared.events.audit import AuditAction
from shared.events.receipts import EndedLease, LeaseEnd
from tests.fakes.authorities import FakeGateway, now
from tests.integration.audit.conftest import Running, Stage, item
from tests.waiting import until


def end(lease_id: str) -> EndedLease:
    return EndedLease(lease_id=lease_id, why=LeaseEnd.NOTICE, at=now())


async def held(running: Running, **query: object) -> set[str]:
    return {lease["lease_id"] for lease in await running.leases(**query)}


async def test_a_release_opens_a_lease_and_the_instances_word_ends_it(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    async with stage.audit() as running:
        _, released = await stage.resolver().release(instance_id=gateway.id, instance_name="gateway-1")
        lease_id = released.items[0].lease_id
        (lease,) = await until(lambda: running.leases(reference="hospital-a/db-url"), within=10)
        assert (lease["lease_id"], lease["subject"], lease["version"]) == (lease_id, "agent-a", "3")

        await gateway.receipt(applied=7, ended=[end(lease_id)])
        (record,) = await running.records(1, action=AuditAction.LEASE_ENDED)
        assert (record.entity_id, record.reason, record.instance_name) == (lease_id, "notice", "gateway-1")
        assert [one.name for one in record.references] == ["hospital-a/db-url"]
        assert record.actor == "agent-a"
        assert await held(running) == set()
        (ended,) = await running.leases(open=False)
        assert ended["why"] == "notice"
        assert ended["ended_at"] is not None


async def test_a_forged_receipt_ends_no_lease(stage: Stage) -> None:
    gateway, other = await stage.policy.enrol("gateway-1"), await stage.policy.enrol("gateway-2")
    stranger = FakeGateway(stage.bus, "instance/nobody", "nobody")
    async with stage.audit() as running:
        _, released = await stage.resolver().release(instance_id=gateway.id)
        lease_id = released.items[0].lease_id
        await until(lambda: held(running), within=10)
        await gateway.receipt(applied=7, ended=[end(lease_id)], key=SigningKey.generate())
        await stranger.receipt(applied=7, ended=[end(lease_id)])
        # Genuine, but about somebody else's lease.
        await other.receipt(applied=7, ended=[end(lease_id)])
        await running.records(1, action=AuditAction.LEASE_ENDED, instance=other.id)
        assert await held(running) == {lease_id}

        await gateway.receipt(applied=7, ended=[end(lease_id)])
        await running.records(1, action=AuditAction.LEASE_ENDED, instance=gateway.id)
        assert await held(running) == set()


async def test_a_receipt_that_is_repeated_ends_a_lease_once(stage: Stage) -> None:
    gateway = await stage.policy.enrol("gateway-1")
    async with stage.audit() as running:
        _, released = await stage.resolver().release(instance_id=gateway.id)
        _, other = await stage.resolver().release(instance_id=gateway.id)
        lease_id = released.items[0].lease_id
        await gateway.receipt(applied=7, ended=[end(lease_id)])
        await gateway.receipt(applied=8, ended=[end(lease_id), end(other.items[0].lease_id)])
        assert len(await running.records(2, action=AuditAction.LEASE_ENDED)) == 2


async def test_the_receipt_of_an_instance_that_enrolled_a_moment_ago_counts(stage: Stage) -> None:
    async with stage.audit() as running:
        gateway = await stage.policy.enrol("new")
        await gateway.receipt(applied=7, ended=[end("lease/1")])
        (record,) = await running.records(1, action=AuditAction.LEASE_ENDED)
        assert record.instance_name == "new"


async def test_an_authorisation_without_an_outcome_is_presumed_delivered(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        old = resolver.record(Phase.AUTHORISED, items=(item(),), at=now().replace(year=now().year - 1))
        fresh = resolver.record(Phase.AUTHORISED, items=(item(),))
        await resolver.say(old, fresh)
        await running.records(2)
        assert await held(running) == {old.items[0].lease_id}


async def test_an_abandoned_answer_opens_nothing(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        lease = item()
        long_ago = now().replace(year=now().year - 1)
        await resolver.say(
            resolver.record(Phase.AUTHORISED, items=(lease,), at=long_ago),
            resolver.record(Phase.ABANDONED, items=(lease,), at=long_ago, reason="not-fresh"),
        )
        await running.records(2)
        assert await held(running) == set()
        assert (await running.get("/v1/references/reference/1/who-did"))["items"] == []


async def test_a_lease_ends_by_itself_when_it_expires(stage: Stage) -> None:
    async with stage.audit() as running:
        await stage.resolver().release(expires_in=-1)
        await running.records(2)
        assert await held(running) == set()


async def test_who_did_names_everybody_who_held_a_value_in_the_span(stage: Stage) -> None:
    async with stage.audit() as running:
        resolver = stage.resolver()
        before = now()
        await resolver.release()
        await resolver.release()
        between = now()
        await resolver.release(context="hospital-b")
        await running.records(6)

        path = "/v1/references/reference/1/who-did"
        uses = {use["context"]: use["times"] for use in (await running.get(path))["items"]}
        assert uses == {"hospital-a": 2, "hospital-b": 1}
        early = (await running.get(path, until=between.isoformat()))["items"]
        assert [(use["subject"], use["context"]) for use in early] == [("agent-a", "hospital-a")]
        # Those of before still hold theirs in the later span.
        late = (await running.get(path, since=between.isoformat()))["items"]
        assert {use["context"] for use in late} == {"hospital-a", "hospital-b"}
        assert (await running.get(path, until=before.isoformat()))["items"] == []
