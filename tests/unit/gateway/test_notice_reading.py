"""What one message of `notices` means to an instance: nothing that ends a lease is ever passed over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.client.notices import Happening, Heard, Lost, Passed, Ticked, happenings, interpret
from shared import topics
from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import record_signer
from shared.bus.whole_topic import Batch, Restarted
from shared.crypto.signing import SigningKey
from shared.events.notices import Notice, NoticeTick
from shared.events.policy import TickRecord
from tests.fakes.installation import Installation, Notices, revocation

POLICY = SigningKey.generate()
AT = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def placed(contract: Notice | NoticeTick, offset: int = 7, **more: object) -> Message:
    message = encode(contract, key=None, source="keyfob/notifier", event_id="1", traceparent=TRACE)
    fields = {"topic": message.topic, "key": None, "value": message.value, "headers": message.headers}
    return Message(**(fields | {"offset": offset} | more))


def tick(key: SigningKey = POLICY, *, name: str = "tick", payload: bytes | None = None) -> NoticeTick:
    record = TickRecord(id="tick", seq=9, revision=1, at=AT, digest="0" * 64)
    said = record.to_json() if payload is None else payload
    key_id, signature = record_signer(key)(topic=topics.POLICY, type_=TickRecord.TYPE, key=name, payload=said)
    return NoticeTick(payload=said, signature=signature, key_id=key_id)


def read(message: Message) -> Happening:
    return interpret(message, POLICY.verify_key)


def test_a_notice_is_heard_with_its_place_and_its_trace() -> None:
    notice = revocation("grant/1", seq=3)
    assert read(placed(notice)) == Heard(7, notice, TRACE)


def test_a_tick_counts_with_policys_own_signature_and_time() -> None:
    assert read(placed(tick())) == Ticked(7, 9, AT.timestamp())


@pytest.mark.parametrize(
    "forged",
    [
        tick(SigningKey.generate()),
        tick(name="grant/1"),
        tick().model_copy(update={"signature": b""}),
        tick().model_copy(update={"payload": tick().payload.replace(b'"seq":9', b'"seq":10')}),
        tick(payload=b"{}"),
    ],
    ids=["another key", "another record", "no signature", "changed after signing", "no tick inside"],
)
def test_a_tick_that_policy_did_not_sign_is_passed_over(forged: NoticeTick) -> None:
    """It opens no fence; ending everything for it would let whoever writes one stop every gateway."""
    assert read(placed(forged)) == Passed(7)


def test_an_unreadable_tick_is_passed_over_too() -> None:
    assert read(placed(tick(), value=b"\xff")) == Passed(7)


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff", b'{"id": 1}', b"x" * (512 * 1024 + 1)])
def test_a_notice_that_can_not_be_read_may_have_meant_any_lease(value: bytes) -> None:
    assert isinstance(read(placed(revocation("grant/1", seq=3), value=value)), Lost)


def test_a_notice_of_another_version_of_the_envelope_may_have_meant_any_lease() -> None:
    message = placed(revocation("grant/1", seq=3))
    headers = tuple((name, b"9.9" if name == "ce_specversion" else value) for name, value in message.headers)
    assert isinstance(read(placed(revocation("grant/1", seq=3), headers=headers)), Lost)


@pytest.mark.parametrize("headers", [(), (("ce_type", b"keyfob.notice.to.come.v9"),), (("ce_type", b"\xff"),)])
def test_a_kind_of_message_that_is_not_known_yet_ends_nothing(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert read(placed(revocation("grant/1", seq=3), headers=headers)) == Passed(7)


@given(st.binary(max_size=200), st.sampled_from([Notice.TYPE, NoticeTick.TYPE, "other"]))
def test_no_bytes_stop_the_reader(value: bytes, kind: str) -> None:
    headers = (("ce_specversion", b"1.0"), ("ce_type", kind.encode()))
    meaning = read(Message(topic=topics.NOTICES, key=None, value=value, headers=headers, offset=3))
    assert meaning.offset == 3


async def test_a_batch_is_told_message_by_message_and_then_to_its_end() -> None:
    """Markers of transactions take offsets too: without the end, receipts would stay behind them."""
    reader = Notices()
    reader.put(Batch((placed(tick(), 4), placed(revocation("grant/1", seq=3), 5)), 9, at_end=True))
    reader.put(Restarted("offset 3 is gone", 50))
    told = []
    async for one in happenings(reader, POLICY.verify_key):
        told.append(one)
        if len(told) == 4:
            break
    assert [type(one) for one in told] == [Ticked, Heard, Passed, Lost]
    assert [one.offset for one in told] == [4, 5, 8, 49]


async def test_an_instance_that_meets_rubbish_between_notices_obeys_those_behind_it() -> None:
    installation = Installation()
    instance = installation.instance()
    await instance.start()
    for meaning in (Passed(0), Lost(1, "unreadable"), Heard(2, revocation("grant/1", seq=8), None)):
        instance._apply(meaning)
    assert instance.ledger.applied_offset == 2
    assert instance.ledger.floor.policy == 8
