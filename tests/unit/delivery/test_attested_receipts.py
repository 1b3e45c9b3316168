"""A resolver's word for a receipt counts for instances that have none of their own, if the settings name it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.resolver.https_only.inbox import attested
from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import to_header
from shared.config import Misconfigured
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import ATTESTED_DOMAIN, RECEIPT_DOMAIN, Itself, Nobody, Resolvers, receipt_verifies
from shared.events.receipts import GatewayReceipt
from shared.wiring import pinned_resolvers

RESOLVER, OTHER, GATEWAY = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
PINNED = Resolvers({RESOLVER.key_id: RESOLVER.verify_key})
RECEIPT = GatewayReceipt(
    instance_id="instance/1",
    run="run/1",
    n=0,
    applied_offset=7,
    dropped_offset=7,
    open_leases=0,
    at=datetime(2026, 11, 23, tzinfo=UTC),
)


def message(receipt: GatewayReceipt = RECEIPT, **other: Any) -> Message:
    """As `attested` makes it, except for what is given."""
    payload = other.get("payload", receipt.to_json())
    signature = other.get("by", RESOLVER).sign(other.get("domain", ATTESTED_DOMAIN), payload)
    extensions = {"signature": to_header(signature), "keyid": other.get("key_id", RESOLVER.key_id)}
    key = other.get("key", receipt.instance_id)
    return encode(receipt, key=key, source="x", event_id="1", extensions=extensions, payload=payload)


def test_a_pinned_resolvers_word_counts() -> None:
    assert PINNED.vouches(attested(RECEIPT, RESOLVER), RECEIPT)
    assert PINNED.vouches(message(), RECEIPT)


@pytest.mark.parametrize(
    "other",
    [
        {"by": OTHER},
        {"by": OTHER, "key_id": OTHER.key_id},
        {"by": GATEWAY, "key_id": GATEWAY.key_id},
        {"key_id": "0" * 16},
        {"key_id": ""},
        {"domain": RECEIPT_DOMAIN},
        {"domain": b"keyfob/answer/1"},
        {"key": "instance/2"},
        {"key": None},
    ],
)
def test_nothing_else_does(other: dict[str, Any]) -> None:
    assert not PINNED.vouches(message(**other), RECEIPT)


def test_what_was_changed_on_the_way_is_not_vouched_for() -> None:
    theirs = RECEIPT.model_copy(update={"instance_id": "instance/2"})
    genuine = attested(RECEIPT, RESOLVER)
    for value in (theirs.to_json(), genuine.value + b" "):
        changed = Message(topic=genuine.topic, key="instance/2", value=value, headers=genuine.headers)
        assert not PINNED.vouches(changed, theirs)


@given(st.binary(max_size=100), st.text(max_size=20))
def test_no_header_does_harm(value: bytes, name: str) -> None:
    headers = (("ce_signature", value), ("ce_keyid", name.encode("utf-8", "surrogatepass")))
    sent = Message(topic="t", key=RECEIPT.instance_id, value=RECEIPT.to_json(), headers=headers)
    assert not PINNED.vouches(sent, RECEIPT)


def test_a_resolvers_word_is_no_instances_own_and_the_reverse() -> None:
    """One key that were pinned for both would still be kept apart by what it signs."""
    assert not Itself(RESOLVER.verify_key).vouches(attested(RECEIPT, RESOLVER), RECEIPT)
    own = message(domain=RECEIPT_DOMAIN)
    assert receipt_verifies(own, RECEIPT, RESOLVER.verify_key)
    assert not PINNED.vouches(own, RECEIPT)


def test_without_settings_no_resolver_counts_and_for_the_banned_nobody_does() -> None:
    assert not pinned_resolvers("").vouches(message(), RECEIPT)
    assert not Nobody().vouches(message(), RECEIPT)
    assert not Nobody().vouches(message(by=GATEWAY, domain=RECEIPT_DOMAIN), RECEIPT)


def test_the_setting_names_keys() -> None:
    both = f"{RESOLVER.verify_key.to_base64()}, {OTHER.verify_key.to_base64()},"
    assert pinned_resolvers(both) == Resolvers({one.key_id: one.verify_key for one in (RESOLVER, OTHER)})
    with pytest.raises(Misconfigured, match="KEYFOB_RESOLVER_KEYS"):
        pinned_resolvers("not-a-key")
