"""Events in, records out: each once, a stream's breaks on record, and leases that only their own instance ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.audit.domain.ports import Signer
from services.audit.handlers import AccessTrail, ChangeTrail, ReceiptTrail, trace_id_of
from shared.bus.cloudevents import Message, Unreadable
from shared.bus.effects import Ack
from shared.crypto.signing import SigningKey
from shared.errors import Unavailable
from shared.events.access import AccessRecord, Phase
from shared.events.alerts import Alert, Severity
from shared.events.audit import AuditAction
from shared.events.changes import VaultChangeKind
from shared.events.receipts import EndedLease, LeaseEnd
from tests.fakes.enrolled import Enrolled, Gateway, read, resolver_receipt
from tests.fakes.journal import FakeJournal
from tests.unit.audit.accesses import AT, STREAM, access, chain, digest, item
from tests.unit.notifier.test_notices import policy_change, vault_change

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message(record: AccessRecord) -> Message:
    return read(record, key=record.stream)


def messages(records: list[AccessRecord]) -> tuple[Message, ...]:
    return tuple(map(message, records))


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


def trail(journal: FakeJournal) -> AccessTrail:
    return AccessTrail(journal.begin, lambda: AT)


# Access records


async def test_a_batch_is_one_transaction_and_its_records_follow_each_other(journal: FakeJournal) -> None:
    assert await trail(journal).on_access(messages(chain(5))) == Ack()
    assert [record.cause_n for record in journal.log] == [0, 1, 2, 3, 4]
    assert [record.n for record in journal.log] == [1, 2, 3, 4, 5]
    assert journal.transactions == 1
    assert journal.streams[STREAM].n == 4


async def test_what_is_delivered_again_is_recorded_once(journal: FakeJournal) -> None:
    records = messages(chain(3))
    await trail(journal).on_access(records)
    await trail(journal).on_access((records[0], *records, records[2]))
    assert len(journal.log) == 3
    assert journal.reasons() == ["", "", ""], "and alarms nobody"


async def test_a_batch_that_failed_is_as_if_it_had_never_been(journal: FakeJournal) -> None:
    journal.failing = [Unavailable("the database is away")]
    with pytest.raises(Unavailable):
        await trail(journal).on_access(messages(chain(3)))
    assert (journal.log, journal.streams, journal.given) == ([], {}, {})
    await trail(journal).on_access(messages(chain(3)))
    assert [record.n for record in journal.log] == [1, 2, 3]
    assert journal.reasons() == ["", "", ""]


async def test_a_missing_record_is_told_once_and_the_rest_goes_on(journal: FakeJournal) -> None:
    records = chain(5)
    await trail(journal).on_access(messages([records[0], *records[2:]]))
    assert [(one.action, one.reason) for one in journal.log if one.reason] == [
        (AuditAction.ALERT_RAISED, "stream-gap"),
    ]
    assert len(journal.log) == 5
    await trail(journal).on_access(messages([records[1]]))
    assert journal.log[-2].reason == "stream-late"
    assert journal.log[-1].cause_n == 1, "it is kept all the same"
    assert journal.streams[STREAM].n == 4, "and the stream does not go back"


async def test_one_number_with_two_contents_leaves_the_first_on_record(journal: FakeJournal) -> None:
    records = chain(2)
    await trail(journal).on_access(messages(records))
    forged = records[1].model_copy(update={"context": "hospital-b"})
    await trail(journal).on_access(messages([forged]))
    assert [one.context for one in journal.log if one.cause_n == 1 and not one.reason] == ["hospital-a"]
    assert journal.log[-1].reason == "stream-fork"
    assert {one.lease_id for one in journal.given.values()} == {"lease/1"}


async def test_a_fork_inside_one_batch_shows_too(journal: FakeJournal) -> None:
    first = access(n=0)
    await trail(journal).on_access(messages([first, first.model_copy(update={"reason": "other"})]))
    assert "stream-fork" in journal.reasons()
    assert len(journal.log) == 2


async def test_streams_are_judged_each_by_itself(journal: FakeJournal) -> None:
    other = [one.model_copy(update={"stream": "access/resolver-2/9a"}) for one in chain(1)]
    await trail(journal).on_access(messages([*chain(2), *other]))
    assert journal.reasons() == ["", "", ""]
    assert {stream: head.n for stream, head in journal.streams.items()} == {STREAM: 1, "access/resolver-2/9a": 0}


async def test_what_is_no_access_record_is_unreadable_and_nothing_of_the_batch_is_kept(journal: FakeJournal) -> None:
    with pytest.raises(Unreadable):
        await trail(journal).on_access((*messages(chain(1)), Message(topic="t", key=None, value=b"")))
    assert journal.log == []


async def test_a_release_confirms_and_an_abandonment_withdraws_a_lease(journal: FakeJournal) -> None:
    first = access(n=0, items=(item(lease_id="lease/1"), item(lease_id="lease/2", field="B")))
    second = access(Phase.RELEASED, n=1, prev=digest(first), items=(item(lease_id="lease/1", version="3"),))
    third = access(Phase.ABANDONED, n=2, prev=digest(second), items=(item(lease_id="lease/2"),))
    await trail(journal).on_access(messages([first, second, third]))
    assert (journal.given["lease/1"].released, journal.given["lease/1"].version) == (True, "3")
    assert not journal.given["lease/2"].released
    assert journal.ends["lease/2", ""].why == "abandoned"


@given(order=st.permutations(range(4)), again=st.lists(st.integers(0, 3), max_size=4))
async def test_in_any_order_and_any_number_of_times_every_record_is_there_once(
    order: list[int], again: list[int]
) -> None:
    journal, records = FakeJournal(), chain(4)
    for n in [*order, *again]:
        await trail(journal).on_access(messages([records[n]]))
    kept = [record.cause_n for record in journal.log if record.action is AuditAction.ACCESS_AUTHORISED]
    assert sorted(kept) == [0, 1, 2, 3]
    assert [record.n for record in journal.log] == list(range(1, len(journal.log) + 1))
    assert ("stream-gap" in journal.reasons()) == (order != sorted(order))


# Changes and alerts


async def test_changes_and_alerts_are_recorded_once_with_their_trace(journal: FakeJournal) -> None:
    changes = ChangeTrail(journal.begin)
    alert = Alert(id="alert/1", kind="x", severity=Severity.CRITICAL, summary="s", concerns=("instance/1",), at=AT)
    for _ in range(2):
        await changes.on_vault_changes((read(vault_change(VaultChangeKind.ROTATED), key="r", traceparent=TRACE),))
        await changes.on_policy_changes((read(policy_change("grant/1"), key="g", traceparent=TRACE),))
        await changes.on_alerts((read(alert, key="alert/1", traceparent=TRACE),))
    assert [one.action for one in journal.log] == [
        AuditAction.REFERENCE_CHANGED,
        AuditAction.POLICY_CHANGED,
        AuditAction.ALERT_RAISED,
    ]
    assert {one.trace_id for one in journal.log} == {TRACE.split("-")[1]}
    assert journal.log[0].detail == "3 → 4"
    assert journal.log[1].actor == "alice"
    assert journal.log[2].entity_id == "instance/1"


@pytest.mark.parametrize("name", ["on_vault_changes", "on_policy_changes", "on_alerts"])
async def test_what_is_none_is_unreadable(journal: FakeJournal, name: str) -> None:
    with pytest.raises(Unreadable):
        await getattr(ChangeTrail(journal.begin), name)(messages(chain(1)))


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [(TRACE, TRACE.split("-")[1]), ("", ""), ("nonsense", ""), ("a-b-c", ""), ("a-b-c-d-e", "")],
)
def test_only_a_whole_traceparent_names_a_trace(traceparent: str, expected: str) -> None:
    assert (
        trace_id_of(Message(topic="t", key=None, value=b"", headers=(("traceparent", traceparent.encode()),)))
        == expected
    )


def test_without_a_traceparent_there_is_no_trace() -> None:
    assert trace_id_of(Message(topic="t", key=None, value=b"")) == ""


# Receipts


@dataclass
class Signers:
    """The port `Instances`."""

    policy: Enrolled = field(default_factory=Enrolled)

    def signer_of(self, instance_id: str) -> Signer | None:
        known = self.policy.snapshot.get(instance_id)
        voucher = None if known is None else known.voucher(self.policy.authority, self.policy.resolvers)
        return None if known is None or voucher is None else Signer(known.name, voucher)

    async def caught_up(self) -> None:
        await self.policy.caught_up()


@dataclass
class Desk:
    """Receipts on fakes."""

    journal: FakeJournal = field(default_factory=FakeJournal)
    signers: Signers = field(default_factory=Signers)

    @property
    def policy(self) -> Enrolled:
        return self.signers.policy

    async def take(self, *taken: Message) -> None:
        assert await ReceiptTrail(self.journal.begin, self.signers, lambda: AT).on_receipts(taken) == Ack()

    async def released(self, instance_id: str, lease_id: str = "lease/1", n: int = 0) -> AccessRecord:
        one = access(Phase.RELEASED, n=n, instance_id=instance_id, items=(item(lease_id=lease_id, version="3"),))
        await trail(self.journal).on_access(messages([one]))
        return one


def ended(*lease_ids: str, seconds: float = 0) -> tuple[EndedLease, ...]:
    at = AT + timedelta(seconds=seconds)
    return tuple(EndedLease(lease_id=one, why=LeaseEnd.NOTICE, at=at) for one in lease_ids)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_an_instances_own_word_ends_its_lease_and_is_on_record(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    await desk.released(gateway.id)
    await desk.take(gateway.receipt(ended=ended("lease/1")))
    assert desk.journal.ends["lease/1", gateway.id].why == LeaseEnd.NOTICE
    record = desk.journal.log[-1]
    assert (record.action, record.instance_name, record.actor) == (AuditAction.LEASE_ENDED, "gateway-1", "agent-a")


async def test_heartbeats_and_resolvers_cost_nothing(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    await desk.take(gateway.receipt(), resolver_receipt(), Message(topic="t", key=None, value=b"\xff"))
    assert desk.journal.transactions == desk.policy.asked == 0


async def test_the_same_end_twice_is_one_record_with_its_first_time(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    await desk.take(gateway.receipt(ended=ended("lease/1")))
    await desk.take(gateway.receipt(ended=ended("lease/1", "lease/2", seconds=9)))
    assert [one.entity_id for one in desk.journal.log] == ["lease/1", "lease/2"]
    assert desk.journal.ends["lease/1", gateway.id].at == AT


@pytest.mark.parametrize("forged", ["key", "place", "unsigned policy"])
async def test_what_does_not_verify_ends_nothing(desk: Desk, forged: str) -> None:
    by = SigningKey.generate() if forged == "unsigned policy" else None
    gateway = desk.policy.enrol("gateway-1", by=by)
    key = SigningKey.generate() if forged == "key" else None
    under = "instance/other" if forged == "place" else None
    await desk.take(gateway.receipt(ended=ended("lease/1"), key=key, under=under))
    assert (desk.journal.log, desk.journal.ends) == ([], {})


async def test_a_genuine_receipt_beside_a_forged_one_counts(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    forged = gateway.receipt(ended=ended("lease/1"), key=SigningKey.generate())
    await desk.take(
        forged, Gateway("instance/nobody").receipt(ended=ended("lease/3")), gateway.receipt(ended=ended("lease/2"))
    )
    assert [one.entity_id for one in desk.journal.log] == ["lease/2"]


async def test_one_that_enrolled_a_moment_ago_is_asked_for_first(desk: Desk) -> None:
    gateway = desk.policy.enrol("new", seen=False)
    await desk.take(gateway.receipt(ended=ended("lease/1")))
    assert [one.entity_id for one in desk.journal.log] == ["lease/1"]
    assert desk.policy.asked == 1


async def test_while_policy_can_not_be_asked_receipts_are_tried_again(desk: Desk) -> None:
    gateway = desk.policy.enrol("new", seen=False)
    desk.policy.failing = [Unavailable("away")]
    with pytest.raises(Unavailable):
        await desk.take(gateway.receipt(ended=ended("lease/1")))


async def test_an_echo_of_what_is_on_record_says_nothing(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    one = await desk.released(gateway.id)
    await desk.take(gateway.receipt(released=(f"{one.stream}/{one.n}/{digest(one)}",)))
    assert desk.journal.echoes == {}
    assert len(desk.journal.log) == 1


async def test_an_echo_of_another_record_is_an_alarm(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    one = await desk.released(gateway.id)
    await desk.take(gateway.receipt(released=(f"{one.stream}/{one.n}/{'0' * 64}",)))
    assert desk.journal.log[-1].reason == "stream-contradicted"


async def test_an_echo_of_a_record_that_is_not_there_is_remembered(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    await desk.take(gateway.receipt(released=(f"{STREAM}/7/{'0' * 64}", "nonsense", "")))
    assert [(echo.n, since) for echo, since in desk.journal.echoes.items()] == [(7, AT)]
    assert desk.journal.log == [], "it may only be late"


async def test_a_receipt_of_ours_that_can_not_be_read_is_dead(desk: Desk) -> None:
    gateway = desk.policy.enrol("gateway-1")
    with pytest.raises(Unreadable):
        await desk.take(replace(gateway.receipt(ended=ended("lease/1")), value=b"{}"))
