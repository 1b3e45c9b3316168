"""A receipt is an instance's own only with its signature over these very bytes, and under its own key in the topic."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import to_header
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import RECEIPT_DOMAIN, receipt_verifies
from shared.events.receipts import GatewayReceipt
from tests.fakes.state_topic import with_header

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
RECEIPT = GatewayReceipt(
    instance_id="instance/1",
    run="run/1",
    n=3,
    applied_offset=9,
    dropped_offset=7,
    open_leases=0,
    at=datetime(2026, 1, 1, tzinfo=UTC),
)


def sent(receipt: GatewayReceipt = RECEIPT, *, key: SigningKey = KEY, domain: bytes = RECEIPT_DOMAIN) -> Message:
    payload = receipt.to_json()
    return encode(
        receipt,
        key=receipt.instance_id,
        source="keyfob/gateway",
        event_id="e",
        payload=payload,
        extensions={"signature": to_header(key.sign(domain, payload))},
    )


def test_a_receipt_with_its_own_signature_counts() -> None:
    assert receipt_verifies(sent(), RECEIPT, KEY.verify_key)


@pytest.mark.parametrize(
    "message",
    [
        sent(key=OTHER),
        sent(domain=b"keyfob/record/v1"),
        with_header(sent(), "ce_signature", None),
        with_header(sent(), "ce_signature", b""),
        with_header(sent(), "ce_signature", b"\xff"),
        with_header(sent(), "ce_signature", sent(RECEIPT.model_copy(update={"n": 2})).headers[-2][1]),
        replace(sent(), value=RECEIPT.model_copy(update={"dropped_offset": 9}).to_json()),
        replace(sent(), value=sent().value + b" "),
        replace(sent(), key="instance/2"),
        replace(sent(), key=None),
    ],
    ids=[
        "another signer", "another use", "no signature", "an empty one", "no text", "that of another receipt",
        "more was dropped", "a space more", "another's place", "no place",
    ],
)  # fmt: skip
def test_anything_else_does_not(message: Message) -> None:
    assert not receipt_verifies(message, RECEIPT, KEY.verify_key)


def test_an_instance_does_not_speak_for_another() -> None:
    forged = RECEIPT.model_copy(update={"instance_id": "instance/2"})
    assert not receipt_verifies(sent(forged, key=OTHER), forged, KEY.verify_key)
