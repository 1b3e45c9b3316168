"""What policy publishes: dense, signed, with the digest that anybody can compute again."""

from __future__ import annotations

from itertools import pairwise

import orjson

from services.policy.ledger import PgLedger
from services.policy.timing import Ticker
from shared import topics
from shared.bus.cloudevents import Message, decode
from shared.bus.signatures import from_header, record_verifies
from shared.events.changes import PolicyAction, PolicyChange
from shared.events.policy import GrantRecord, TickRecord
from shared.events.registry import POLICY_RECORDS, by_type
from shared.projection import digest
from tests.integration.policy.conftest import PolicyUnderTest, fresh
from tests.integration.policy.stories import hospital
from tests.waiting import until

KNOWN = by_type(POLICY_RECORDS)


def seq_of(message: Message) -> int:
    return int(message.header("ce_commitseq") or 0)


async def changes(policy: PolicyUnderTest, *, through_seq: int) -> list[PolicyChange]:
    return [decode(one, PolicyChange) for one in await policy.messages(topics.POLICY_CHANGES, through_seq=through_seq)]


async def test_commits_are_numbered_without_gaps_and_in_order(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    last = (await policy.call("DELETE", f"/v1/profiles/{it.profile}"))["seq"]
    numbers = [seq_of(one) for one in await policy.messages(topics.POLICY, through_seq=last)]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, max(numbers) + 1))


async def test_every_record_carries_the_signature_of_the_policy_key(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    last = (await policy.call("DELETE", f"/v1/grants/{it.grant_id}"))["seq"]
    for one in await policy.messages(topics.POLICY, through_seq=last):
        signature = from_header(one.header("ce_signature"))
        assert one.key is not None
        assert one.type is not None
        assert signature is not None
        assert record_verifies(
            policy.key.verify_key, signature, topic=one.topic, type_=one.type, key=one.key, payload=one.value
        )


async def test_the_digest_of_every_tick_is_that_of_the_records_before_it(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    await policy.call("DELETE", f"/v1/servers/{it.server}")
    last = (await policy.call("POST", "/v1/profiles", {"name": fresh("profile")}))["seq"]
    living: dict[str, bytes] = {}
    ticks = 0
    for one in await policy.messages(topics.POLICY, through_seq=last + 1):
        assert one.key is not None
        if one.type == TickRecord.TYPE:
            computed = sum(digest.entry(key, payload) for key, payload in living.items()) % (1 << 256)
            assert decode(one, TickRecord).digest == digest.text(computed)
            ticks += 1
        elif orjson.loads(one.value)["deleted"]:
            living.pop(one.key)
        else:
            living[one.key] = one.value
    assert ticks >= 1


async def test_deleting_leaves_a_signed_record_with_the_next_revision(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    gone = await policy.call("DELETE", f"/v1/grants/{it.grant_id}")
    found = [one for one in await policy.messages(topics.POLICY, through_seq=gone["seq"]) if one.key == it.grant_id]
    records = [decode(one, GrantRecord) for one in found]
    assert [(one.revision, one.deleted) for one in records] == [(1, False), (2, True)]
    assert records[1].seq == gone["seq"]


async def test_each_change_tells_who_did_what_and_what_ended(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    gone = await policy.call("DELETE", f"/v1/profiles/{it.profile}")
    change = next(one for one in await changes(policy, through_seq=gone["seq"]) if one.id == gone["event_id"])
    assert (change.action, change.entity_kind, change.entity_id) == (PolicyAction.DELETED, "profile", it.profile_id)
    assert (change.entity_name, change.actor.subject, change.seq) == (it.profile, "ada", gone["seq"])
    assert set(change.ended) == {it.profile_id, it.mapping_id, it.grant_id, it.binding_id}
    assert change.ended[0] == it.profile_id


async def test_creating_ends_nothing(policy: PolicyUnderTest) -> None:
    it = await hospital(policy)
    last = (await policy.call("POST", "/v1/profiles", {"name": fresh("profile")}))["seq"]
    mine = [one for one in await changes(policy, through_seq=last) if one.entity_id == it.grant_id]
    assert [(one.action, one.ended) for one in mine] == [(PolicyAction.CREATED, ())]


async def test_ticks_come_by_themselves_and_say_how_far_policy_has_come(policy: PolicyUnderTest) -> None:
    first = (await policy.call("POST", "/v1/profiles", {"name": fresh("profile")}))["seq"]

    async def ticks() -> list[TickRecord]:
        found = [one for one in await policy.messages(topics.POLICY) if one.type == TickRecord.TYPE]
        return [one for one in (decode(message, TickRecord) for message in found) if one.seq > first]

    seen = await until(lambda: _two(ticks), within=5, every=0.2)
    assert [one.id for one in seen] == ["tick"] * len(seen)
    assert [one.revision for one in seen] == list(range(seen[0].revision, seen[0].revision + len(seen)))
    gaps = [(later.at - earlier.at).total_seconds() for earlier, later in pairwise(seen)]
    assert all(gap > 0.5 for gap in gaps)


async def _two(ticks: object) -> list[TickRecord]:
    found: list[TickRecord] = await ticks()  # type: ignore[operator]
    return found if len(found) > 1 else []


async def test_a_second_replica_adds_no_ticks(policy: PolicyUnderTest, ledger: PgLedger) -> None:
    other = Ticker(ledger, every_s=3600)
    before = (await policy.call("POST", "/v1/profiles", {"name": fresh("profile")}))["seq"]
    for _ in range(3):
        await other.once()
    assert other.reason() is None
    after = (await policy.call("POST", "/v1/profiles", {"name": fresh("profile")}))["seq"]
    found = [one for one in await policy.messages(topics.POLICY, through_seq=after) if before < seq_of(one) < after]
    assert len(found) <= 1


async def test_the_callers_trace_goes_on_in_the_messages(policy: PolicyUnderTest) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {
        "authorization": f"Bearer {policy.admin_token()}",
        "traceparent": f"00-{trace_id}-b7ad6b7169203331-01",
    }
    answer = await policy.http.post("/v1/profiles", json={"name": fresh("profile")}, headers=headers)
    seq = answer.json()["seq"]
    for topic in (topics.POLICY, topics.POLICY_CHANGES):
        found = [one for one in await policy.messages(topic, through_seq=seq) if seq_of(one) == seq]
        assert [(one.header("traceparent") or "").split("-")[1] for one in found] == [trace_id]


async def test_a_traceparent_that_is_none_harms_nobody(policy: PolicyUnderTest) -> None:
    for text in ("", "x" * 5_000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\xff"):
        headers = {b"authorization": f"Bearer {policy.admin_token()}".encode(), b"traceparent": text.encode("latin-1")}
        assert (await policy.http.get("/v1/profiles", headers=headers)).status_code == 200
