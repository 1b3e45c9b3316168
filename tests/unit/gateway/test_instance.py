"""An instance among notices, answers and clocks, in orders that a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from services.gateway.client.instance import Instance
from services.gateway.client.leases import Fenced, Urgency
from services.gateway.client.resolving import Refused, Wanted
from shared.bus.cloudevents import Message, encode
from shared.bus.whole_topic import Batch, Restarted
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import receipt_verifies
from shared.errors import NotFresh, Unavailable
from shared.events.definitions import StdioServer
from shared.events.receipts import LeaseEnd
from tests.fakes.agent_side import teller
from tests.fakes.installation import Allowed, Installation, Reference, revocation
from tests.waiting import until

TOKEN = "token-of-a"
WANTED = Wanted("teller")


@pytest.fixture
def reference() -> Reference:
    return Reference("reference/a", b"old value")


@pytest.fixture
def installation(reference: Reference) -> Installation:
    made = Installation()
    made.define("teller", teller())
    made.tokens[TOKEN] = Allowed("agent-a", {"hospital-a": {"DB_URL": reference}})
    return made


@asynccontextmanager
async def running(installation: Installation, **settings: float) -> AsyncIterator[Instance]:
    instance = installation.instance(**settings)
    told: list[Fenced] = []
    instance.on_fenced = told.extend
    await instance.start()
    task = asyncio.create_task(instance.run())
    installation.tick()
    await until(lambda: instance.not_ready() is None)
    try:
        yield instance
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_holds_what_it_resolved_until_a_notice_ends_it(
    installation: Installation, reference: Reference
) -> None:
    async with running(installation) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        assert holding.values["DB_URL"].matches(b"old value")
        assert instance.usable(holding)
        installation.say(installation.rotate(reference, b"new value"))
        await until(lambda: not instance.usable(holding))
        again = await instance.resolve(TOKEN, WANTED)
        assert again.values["DB_URL"].matches(b"new value")


async def test_an_answer_that_crosses_its_notice_is_discarded_and_asked_again(
    installation: Installation, reference: Reference
) -> None:
    crossings = 1

    async def cross() -> None:
        nonlocal crossings
        if crossings:
            crossings -= 1
            offset = installation.say(installation.rotate(reference, b"new value"))
            await until(lambda: instance.ledger.applied_offset >= offset)

    installation.before_answer = cross
    async with running(installation) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
    assert holding.values["DB_URL"].matches(b"new value")
    assert len(installation.asked) == 2
    assert installation.asked[1].floor.catalog == installation.catalog_seq, "the second question asks for more"
    assert instance.ledger.progress().open_leases == 1, "nothing of the discarded answer is held"


async def test_a_notice_that_ends_something_else_does_not_disturb_an_answer(installation: Installation) -> None:
    async def cross() -> None:
        offset = installation.say(installation.revoke("grant/of-somebody-else"))
        await until(lambda: instance.ledger.applied_offset >= offset)

    installation.before_answer = cross
    async with running(installation) as instance:
        await instance.resolve(TOKEN, WANTED)
    assert len(installation.asked) == 1


async def test_what_keeps_changing_is_refused_in_the_end(installation: Installation, reference: Reference) -> None:
    async def cross() -> None:
        offset = installation.say(installation.rotate(reference, b"newer value"))
        await until(lambda: instance.ledger.applied_offset >= offset)

    installation.before_answer = cross
    async with running(installation) as instance:
        with pytest.raises(Unavailable):
            await instance.resolve(TOKEN, WANTED)
        assert instance.ledger.progress().open_leases == 0


async def test_no_receipt_passes_a_notice_while_a_resolve_that_was_out_is_out(installation: Installation) -> None:
    held, let_go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        held.set()
        await let_go.wait()

    installation.before_answer = hold
    async with running(installation, heartbeat_s=0.01) as instance:
        asking = asyncio.create_task(instance.resolve(TOKEN, WANTED))
        await held.wait()
        offset = installation.say(revocation("grant/9", seq=1))
        await until(lambda: any(one.applied_offset >= offset for one in installation.receipts))
        count = len(installation.receipts)
        await until(lambda: len(installation.receipts) > count + 3)
        assert all(one.dropped_offset < offset for one in installation.receipts)
        let_go.set()
        await asking
        await until(lambda: installation.receipts[-1].dropped_offset >= offset)


async def test_a_holder_says_at_once_that_it_fenced_and_later_that_it_dropped(installation: Installation) -> None:
    async with running(installation, heartbeat_s=60) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        offset = installation.say(installation.revoke("grant/hospital-a/agent-a"))
        fenced = await until(lambda: next((one for one in installation.receipts if one.applied_offset >= offset), None))
        assert fenced.dropped_offset < offset
        assert fenced.open_leases == 1
        instance.let_go(holding, LeaseEnd.NOTICE)
        dropped = await until(
            lambda: next((one for one in installation.receipts if one.dropped_offset >= offset), None)
        )
        assert [(one.lease_id, one.why) for one in dropped.ended] == [(holding.lease_ids[0], LeaseEnd.NOTICE)]
        assert dropped.open_leases == 0


async def test_receipts_are_the_instances_own_and_echo_the_authorisation(installation: Installation) -> None:
    async with running(installation) as instance:
        await instance.resolve(TOKEN, WANTED)
        await until(lambda: any(one.released for one in installation.receipts))
    key = installation.keys.signing.verify_key
    for message, receipt in zip(installation.messages, installation.receipts, strict=True):
        assert receipt_verifies(message, receipt, key)
        assert not receipt_verifies(message, receipt, SigningKey.generate().verify_key)
    assert [one.n for one in installation.receipts] == list(range(len(installation.receipts)))
    assert len({one.run for one in installation.receipts}) == 1
    echoes = [echo for one in installation.receipts for echo in one.released]
    assert len(echoes) == 1
    assert echoes[0].startswith("stream/1/")


async def test_receipts_about_a_notice_belong_to_its_trace(installation: Installation) -> None:
    trace.set_tracer_provider(TracerProvider())
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with running(installation, heartbeat_s=60) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        notice = installation.revoke("grant/hospital-a/agent-a")
        offset = installation.say(notice, traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
        await until(lambda: installation.receipts[-1].applied_offset >= offset)
        instance.let_go(holding, LeaseEnd.NOTICE)
        await until(lambda: installation.receipts[-1].dropped_offset >= offset)
    told = [message.header("traceparent") or "" for message in installation.messages[-2:]]
    assert [text.split("-")[1] for text in told] == [trace_id, trace_id]


async def test_what_a_receipt_could_not_tell_is_told_by_the_next(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = installation.publish

    async def away(message: Message) -> None:
        raise Unavailable("the bus is away")

    async with running(installation) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        instance.receipts.publish = away
        instance.let_go(holding, LeaseEnd.SESSION)
        await until(lambda: instance.receipts.trouble is not None)
        instance.receipts.publish = durable
        await until(lambda: any(one.ended for one in installation.receipts))
        assert [end.lease_id for one in installation.receipts for end in one.ended] == list(holding.lease_ids)


async def test_without_a_tick_it_resolves_nothing(installation: Installation) -> None:
    instance = installation.instance()
    await instance.start()
    with pytest.raises(NotFresh):
        await instance.resolve(TOKEN, WANTED)
    assert installation.asked == []


@pytest.mark.parametrize(("monotonic", "wall"), [(61.0, 0.0), (0.0, 61.0), (61.0, -9999.0)])
async def test_a_minute_without_a_tick_fences_everything(
    installation: Installation, monotonic: float, wall: float
) -> None:
    clock = installation.clock
    async with running(installation) as instance:
        told: list[Fenced] = []
        instance.on_fenced = told.extend
        holding = await instance.resolve(TOKEN, WANTED)
        clock.monotonic, clock.wall = monotonic, wall
        assert not instance.usable(holding), "on the very next use"
        assert [(one.urgency, one.why) for one in told] == [(Urgency.KILL, LeaseEnd.FENCED)]
        with pytest.raises(NotFresh):
            await instance.resolve(TOKEN, WANTED)


async def test_a_drain_is_bounded_by_the_tick_before_its_notice_and_by_no_later_one(
    installation: Installation, reference: Reference
) -> None:
    clock = installation.clock
    async with running(installation) as instance:
        told: list[Fenced] = []
        instance.on_fenced = told.extend
        await instance.resolve(TOKEN, WANTED)
        clock.monotonic = clock.wall = 50.0
        installation.say(installation.rotate(reference, b"new value"))
        installation.tick()
        await until(lambda: told)
        assert [one.urgency for one in told] == [Urgency.DRAIN]
        assert 9 < told[0].within_s <= 10


async def test_the_fence_closes_without_being_asked(installation: Installation) -> None:
    clock = installation.clock
    async with running(installation) as instance:
        told: list[Fenced] = []
        instance.on_fenced = told.extend
        await instance.resolve(TOKEN, WANTED)
        clock.monotonic = 61
        await until(lambda: told)


async def test_who_was_stopped_beyond_the_bound_holds_nothing_even_if_a_new_tick_is_read_first(
    installation: Installation,
) -> None:
    clock = installation.clock
    instance = installation.instance()
    await instance.start()
    installation.tick(at=clock().wall)
    reading = asyncio.create_task(instance._obey())
    try:
        await until(lambda: instance.not_ready() is None)
        holding = await instance.resolve(TOKEN, WANTED)
        clock.monotonic = clock.wall = 61.0
        offset = installation.tick(at=clock().wall)
        await until(lambda: instance.ledger.applied_offset >= offset)
        assert instance.not_ready() is None, "the new tick opens the fence again"
        assert not instance.usable(holding), "but not for what it held before"
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_tick_that_policy_did_not_sign_does_not_count(installation: Installation) -> None:
    clock = installation.clock
    async with running(installation) as instance:
        clock.monotonic = clock.wall = 61
        offset = installation.tick(at=clock().wall, key=SigningKey.generate())
        await until(lambda: instance.ledger.applied_offset >= offset)
        assert instance.not_ready() is not None
        installation.tick(at=clock().wall)
        await until(lambda: instance.not_ready() is None)


async def test_an_old_tick_said_again_does_not_count(installation: Installation) -> None:
    clock = installation.clock
    async with running(installation) as instance:
        seq = installation.policy_seq
        clock.monotonic = 61
        offset = installation.tick(at=clock().wall, seq=seq)
        await until(lambda: instance.ledger.applied_offset >= offset)
        assert instance.not_ready() is not None


async def test_a_hole_in_the_topic_drops_everything(installation: Installation) -> None:
    async with running(installation) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        installation.notices.put(Restarted("the broker no longer has offset 3", 50))
        await until(lambda: not instance.usable(holding))
        assert instance.ledger.progress().dropped_offset == 48
        instance.let_go(holding, LeaseEnd.FENCED)
        assert instance.ledger.progress().dropped_offset == 49


async def test_a_notice_that_can_not_be_read_drops_everything(installation: Installation) -> None:
    async with running(installation) as instance:
        holding = await instance.resolve(TOKEN, WANTED)
        good = encode(installation.revoke("grant/9"), key=None, source="keyfob/notifier", event_id="1")
        installation.notices.append(Message(topic=good.topic, key=None, value=b'{"id": 1}', headers=good.headers))
        await until(lambda: not instance.usable(holding))


async def test_positions_move_over_what_nobody_can_see(installation: Installation) -> None:
    async with running(installation) as instance:
        installation.notices.put(Batch((), 90, at_end=True))
        await until(lambda: instance.ledger.progress().dropped_offset == 89)


async def test_an_expired_lease_is_over_without_being_used(installation: Installation) -> None:
    async with running(installation, fence_s=1e6) as instance:
        told: list[Fenced] = []
        instance.on_fenced = told.extend
        await instance.resolve(TOKEN, WANTED)
        installation.clock.forward(installation.lease_s)
        await until(lambda: told)
        assert told[0].why is LeaseEnd.EXPIRED


async def test_a_refusal_is_passed_on_byte_for_byte(installation: Installation) -> None:
    async with running(installation) as instance:
        with pytest.raises(Refused) as unknown:
            await instance.resolve(TOKEN, Wanted("no-such-server"))
        with pytest.raises(Refused) as foreign:
            await instance.resolve(TOKEN, Wanted("teller", "hospital-b"))
    assert (unknown.value.status, unknown.value.body) == (foreign.value.status, foreign.value.body)
    assert unknown.value.status == 404
    assert unknown.value.kind == "not-available"


async def test_a_definition_that_policy_did_not_sign_is_not_used(installation: Installation) -> None:
    genuine = installation.policy_key
    async with running(installation) as instance:
        installation.policy_key = SigningKey.generate()
        with pytest.raises(Unavailable):
            await instance.resolve(TOKEN, WANTED)
        installation.policy_key = genuine
        await instance.resolve(TOKEN, WANTED)


async def test_a_definition_that_was_deleted_is_not_used(installation: Installation) -> None:
    async with running(installation) as instance:
        record = installation.servers["teller"]
        installation.servers["teller"] = record.model_copy(update={"deleted": True})
        with pytest.raises(Unavailable):
            await instance.resolve(TOKEN, WANTED)


async def test_a_definition_with_another_digest_or_other_fields_is_not_used(installation: Installation) -> None:
    async with running(installation) as instance:
        record = installation.servers["teller"]
        installation.servers["teller"] = record.model_copy(update={"digest": "0" * 64})
        with pytest.raises(Unavailable):
            await instance.resolve(TOKEN, WANTED)
        installation.define("teller", StdioServer(command="/bin/true"))
        with pytest.raises(Unavailable):
            await instance.resolve(TOKEN, WANTED)
        assert instance.ledger.progress().open_leases == 0


async def test_an_answer_by_a_resolver_that_was_not_pinned_is_not_used(installation: Installation) -> None:
    async with running(installation, deadline_s=0.2) as instance:
        installation.resolver_key = SigningKey.generate()
        with pytest.raises(Unavailable):
            await instance.resolve(TOKEN, WANTED)
