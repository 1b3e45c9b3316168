"""What a run of an instance says of itself: numbered, signed, in portions, and again until it is certain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from services.gateway.client.leases import Floor, Lease, Moment
from services.gateway.client.ledger import Ledger
from services.gateway.client.receipts import ReceiptWriter, sign_receipt
from shared import topics
from shared.bus.cloudevents import PAYLOAD_LIMIT, Message, decode
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import receipt_verifies
from shared.errors import Unavailable
from shared.events.receipts import MOST_TOLD, EndedLease, GatewayReceipt, LeaseEnd
from tests.waiting import until

NOW = Moment(100.0, 1_000_000.0)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Topic:
    """Where receipts go; `away` are so many attempts that fail."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.away = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def publish(self, message: Message) -> None:
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.away:
            self.away -= 1
            raise Unavailable("the bus did not acknowledge within 5 s")
        self.messages.append(message)

    @property
    def receipts(self) -> list[GatewayReceipt]:
        return [decode(message, GatewayReceipt) for message in self.messages]


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def writer(topic: Topic) -> ReceiptWriter:
    ledger = Ledger()
    ledger.start_at(43)
    return ReceiptWriter(ledger, "instance/1", SigningKey.generate(), topic.publish, heartbeat_s=60)


def end(writer: ReceiptWriter, *numbers: int) -> None:
    held = [
        Lease(
            id=f"lease/{number}",
            reference_id="reference/1",
            version="1",
            rests_on=frozenset(),
            decided=Floor(),
            expires_at=NOW.wall + 60,
            expires_at_monotonic=NOW.monotonic + 60,
        )
        for number in numbers
    ]
    writer.ledger.settle(writer.ledger.ask(), held)
    writer.ledger.end([one.id for one in held], LeaseEnd.SESSION, NOW)


async def test_receipts_of_a_run_are_numbered_and_carry_how_far_it_has_come(
    topic: Topic, writer: ReceiptWriter
) -> None:
    assert await writer.write()
    writer.ledger.pass_over(50)
    assert await writer.write()
    assert [(one.n, one.applied_offset, one.dropped_offset) for one in topic.receipts] == [(0, 42, 42), (1, 50, 50)]
    assert {one.run for one in topic.receipts} == {writer.run_id}


async def test_another_run_has_another_name(topic: Topic) -> None:
    one, two = (ReceiptWriter(Ledger(), "instance/1", SigningKey.generate(), topic.publish) for _ in range(2))
    assert one.run_id != two.run_id


async def test_it_is_signed_and_stands_under_its_instances_id(topic: Topic, writer: ReceiptWriter) -> None:
    await writer.write()
    (message,) = topic.messages
    assert (message.topic, message.key) == (topics.RECEIPTS, "instance/1")
    assert receipt_verifies(message, topic.receipts[0], writer.key.verify_key)
    assert message.header("ce_keyid") == writer.key.key_id
    assert message.event_id == f"{writer.run_id}/0"


async def test_what_is_not_certain_to_be_there_is_told_again_under_a_new_number(
    topic: Topic, writer: ReceiptWriter
) -> None:
    """The first may have arrived all the same: two different receipts must not have one number."""
    end(writer, 1)
    topic.away = 1
    assert not await writer.write()
    assert writer.trouble == "the bus did not acknowledge within 5 s"
    assert await writer.write()
    assert writer.trouble is None
    (receipt,) = topic.receipts
    assert (receipt.n, [one.lease_id for one in receipt.ended]) == (1, ["lease/1"])


async def test_what_was_told_is_not_told_again(topic: Topic, writer: ReceiptWriter) -> None:
    end(writer, 1)
    writer.ledger.echo("stream/1/0/00")
    await writer.write()
    await writer.write()
    assert [(len(one.ended), len(one.released)) for one in topic.receipts] == [(1, 1), (0, 0)]


async def test_what_ends_while_a_receipt_is_on_its_way_stands_in_the_next(topic: Topic, writer: ReceiptWriter) -> None:
    end(writer, 1)

    async def another() -> None:
        topic.meanwhile = None
        end(writer, 2)
        writer.ledger.echo("stream/1/0/00")

    topic.meanwhile = another
    await writer.write()
    assert writer._due.is_set(), "and the next does not wait for the heartbeat"
    await writer.write()
    assert [[one.lease_id for one in receipt.ended] for receipt in topic.receipts] == [["lease/1"], ["lease/2"]]
    assert [len(receipt.released) for receipt in topic.receipts] == [0, 1]


async def test_much_to_tell_is_told_in_portions_that_fit_a_message(topic: Topic, writer: ReceiptWriter) -> None:
    end(writer, *range(MOST_TOLD + 3))
    for number in range(MOST_TOLD + 3):
        writer.ledger.echo(f"access/resolver-with-a-rather-long-name/{number:032x}/{number}/{'0' * 64}")
    await writer.write()
    await writer.write()
    assert [(len(one.ended), len(one.released)) for one in topic.receipts] == [(MOST_TOLD, MOST_TOLD), (3, 3)]
    assert len(topic.messages[0].value) < PAYLOAD_LIMIT
    assert len({one.lease_id for receipt in topic.receipts for one in receipt.ended}) == MOST_TOLD + 3


async def test_whoever_fenced_something_does_not_wait_for_the_heartbeat(topic: Topic, writer: ReceiptWriter) -> None:
    running = asyncio.create_task(writer.run())
    try:
        await until(lambda: len(topic.messages) == 1)
        writer.hurry(TRACE)
        await until(lambda: len(topic.messages) == 2)
        assert topic.messages[1].header("traceparent") == TRACE
        writer.hurry()
        await until(lambda: len(topic.messages) == 3)
        assert topic.messages[2].header("traceparent") is None, "a trace belongs to the receipts about its notice"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_trace_of_a_notice_is_not_lost_to_a_hurry_without_one(topic: Topic, writer: ReceiptWriter) -> None:
    writer.hurry(TRACE)
    writer.hurry()
    await writer.write()
    assert topic.messages[0].header("traceparent") == TRACE


async def test_without_anything_new_it_says_so_at_each_heartbeat(topic: Topic, writer: ReceiptWriter) -> None:
    writer.heartbeat_s = 0.01
    running = asyncio.create_task(writer.run())
    try:
        await until(lambda: len(topic.messages) >= 3)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_the_signature_covers_every_byte() -> None:
    key = SigningKey.generate()
    receipt = GatewayReceipt(
        instance_id="instance/1",
        run="run/1",
        n=0,
        applied_offset=7,
        dropped_offset=7,
        open_leases=0,
        ended=(EndedLease(lease_id="lease/1", why=LeaseEnd.NOTICE, at=datetime.fromtimestamp(0, UTC)),),
        at=datetime.fromtimestamp(0, UTC),
    )
    message = sign_receipt(receipt, key)
    for changed in ({"dropped_offset": 8}, {"n": 1}, {"ended": ()}, {"run": "run/2"}):
        other = receipt.model_copy(update=changed)
        forged = Message(topic=message.topic, key=message.key, value=other.to_json(), headers=message.headers)
        assert not receipt_verifies(forged, other, key.verify_key)
