"""What is written by hand is what the contracts would write: records byte for byte, answers member for member."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from services.resolver.answers import Lease, Release
from services.resolver.domain.decision import Item, Plan
from services.resolver.domain.plans import StoredValue
from services.resolver.domain.snapshot import Floor
from services.resolver.entries import Entry, RecordedItem
from services.resolver.records import Position
from services.resolver.sources.port import ReadValue
from shared.bus.cloudevents import Message, decode, encode
from shared.crypto.framing import from_base64url
from shared.crypto.secret import SecretBytes
from shared.delivery.messages import ResolveAnswer, decode_answer, encode_answer
from shared.events.access import FIRST_PREV, AccessRecord, Phase
from shared.identity import Subject
from tests.fakes.gateway import values
from tests.fakes.resolving import Bench
from tests.thoroughness import examples

IDS = st.from_regex(r"[A-Za-z0-9._:/-]{1,40}", fullmatch=True)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
ITEMS = st.builds(
    RecordedItem,
    field=NAMES,
    reference_id=IDS,
    reference_name=NAMES,
    source_id=IDS,
    version=st.none() | NAMES,
    lease_id=IDS,
    expires_at=st.floats(1.7e9, 4e9),
    rests_on=st.lists(IDS, max_size=5).map(tuple),
)
ENTRIES = st.builds(
    Entry,
    phase=st.sampled_from(Phase),
    resolution_id=IDS,
    instance_id=st.none() | IDS,
    instance_name=st.just("") | NAMES,
    subject=st.none() | st.tuples(IDS, NAMES),
    groups=st.lists(NAMES, max_size=3).map(tuple),
    server_id=st.none() | IDS,
    server_name=st.just("") | NAMES,
    profile_id=st.none() | IDS,
    context=st.just("") | NAMES,
    items=st.lists(ITEMS, max_size=3).map(tuple),
    reason=st.just("") | NAMES,
    policy_seq=st.integers(0, 2**53),
    catalog_seq=st.integers(0, 2**53),
    trace_id=st.just("") | st.just("4bf92f3577b34da6a3ce929d0e0e4736"),
    traceparent=st.none() | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)


@settings(max_examples=examples(200), deadline=None)
@given(entry=ENTRIES, n=st.integers(0, 2**40), at=TIMES)
def test_a_record_is_exactly_what_its_contract_writes(entry: Entry, n: int, at: datetime) -> None:
    payload = entry.payload(stream="access/r/1", n=n, prev=FIRST_PREV, at=at)
    record = AccessRecord.model_validate_json(payload)
    assert record.to_json() == payload
    assert (record.id, record.n, record.at, record.phase) == (f"access/r/1/{n}", n, at, entry.phase)
    assert [item.version for item in record.items] == [item.version for item in entry.items]
    for item, written in zip(entry.items, record.items, strict=True):
        assert abs(written.expires_at - datetime.fromtimestamp(item.expires_at, UTC)) < timedelta(microseconds=2)


@given(entry=ENTRIES, at=TIMES)
def test_a_message_has_exactly_the_attributes_of_a_cloudevent(entry: Entry, at: datetime) -> None:
    payload = entry.payload(stream="access/r/1", n=0, prev=FIRST_PREV, at=at)
    headers = entry.headers(record_id="access/r/1/0", at=at)
    record = decode(Message(topic=AccessRecord.TOPIC, key="k", value=payload, headers=tuple(headers)), AccessRecord)
    same = encode(
        record,
        key="k",
        source="keyfob/resolver",
        event_id=record.id,
        time=at,
        traceparent=entry.traceparent,
        payload=payload,
    )
    assert sorted(headers) == sorted(same.headers)


async def test_an_answer_is_what_its_contract_reads_and_writes(bench: Bench) -> None:
    plan = await planned(bench)
    release = Release(
        plan=plan,
        subject=Subject("idp/okta", "ana", frozenset({"hospital-a-staff"}), 1_800_000_000.5, b""),
        leases=tuple(Lease(f"lease/{item.field}", item, 1_800_000_000.25) for item in plan.items),
        values=tuple(ReadValue(SecretBytes(b"\xff\x00 not text"), "7") for _ in plan.items),
        record=Position("access/r/1", 3, "ab" * 32),
    )
    payload = release.payload()
    answer = decode_answer(payload)
    assert bytes(encode_answer(answer)) == payload
    assert values(answer) == {"DB_URL": b"\xff\x00 not text"}
    assert answer.server.payload == plan.server.evidence.payload
    assert answer.server.signature == plan.server.evidence.signature
    assert set(ResolveAnswer.model_fields) == set(answer.model_dump())


async def planned(bench: Bench) -> Plan:
    """A plan as a real decision makes it."""
    answer = await bench.gateway.resolve(bench.token())
    snapshot = bench.knowledge.snapshot()
    server = snapshot.policy.servers["patients-db"][0]
    reference = snapshot.catalog.reference(answer.fields[0].lease.reference_id or "")
    source = snapshot.catalog.source("source/vault")
    instance, profile = snapshot.policy.instance("instance/gateway-1"), snapshot.policy.profile("profile/hospital-a")
    assert reference
    assert source
    assert instance
    assert profile
    item = Item("DB_URL", StoredValue(reference, source), answer.fields[0].lease.rests_on, None)
    return Plan(Floor(7, 8), instance, server, profile, "hospital-a-staff", (item,))


def test_values_travel_as_base64url_without_padding() -> None:
    assert from_base64url("_wA") == b"\xff\x00"
