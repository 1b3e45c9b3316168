"""Whether a gateway's receipt is really its own.

An instance signs the payload of its receipt, exactly as it is on the wire, under the domain `keyfob/receipt/v1`; the
signature travels as base64url without padding in `ce_signature`. A receipt also stands under its instance's id as
the message's key: otherwise receipts of one instance could overtake each other in different partitions.

An instance of the profile `https` has no such key. The resolver that took its receipt over mutual TLS says so by its
own signature, under the domain `keyfob/attested-receipt/v1`, and names its key in `ce_keyid`.

Which of the two counts is never the message's to say: policy's record of the instance has its profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from shared.bus.cloudevents import Message
from shared.bus.signatures import from_header
from shared.crypto.signing import VerifyKey
from shared.errors import SignatureInvalid
from shared.events.receipts import GatewayReceipt

RECEIPT_DOMAIN: Final = b"keyfob/receipt/v1"
ATTESTED_DOMAIN: Final = b"keyfob/attested-receipt/v1"


class Voucher(Protocol):
    """Who vouches for an instance's receipts."""

    def vouches(self, message: Message, receipt: GatewayReceipt) -> bool:
        """Whether it signed `message`, which holds `receipt`, where that instance's receipts stand."""
        ...


@dataclass(frozen=True, slots=True)
class Nobody:
    """Nobody does: the instance is banned. Its keys may be in hands that would say just this, "I dropped it"."""

    def vouches(self, message: Message, receipt: GatewayReceipt) -> bool:
        """See `Voucher`."""
        del message, receipt
        return False


@dataclass(frozen=True, slots=True)
class Itself:
    """The instance does, by its own key."""

    key: VerifyKey

    def vouches(self, message: Message, receipt: GatewayReceipt) -> bool:
        """See `Voucher`."""
        return receipt_verifies(message, receipt, self.key)


@dataclass(frozen=True, slots=True)
class Resolvers:
    """A resolver does that saw the instance's certificate; `keys` are those pinned in the settings, by id."""

    keys: Mapping[str, VerifyKey] = field(default_factory=dict)

    def vouches(self, message: Message, receipt: GatewayReceipt) -> bool:
        """See `Voucher`."""
        key = self.keys.get(message.header("ce_keyid") or "")
        return key is not None and _verifies(message, receipt, key, ATTESTED_DOMAIN)


def receipt_verifies(message: Message, receipt: GatewayReceipt, key: VerifyKey) -> bool:
    """Whether `message`, which holds `receipt`, was signed by `key` and stands where that instance's receipts do."""
    return _verifies(message, receipt, key, RECEIPT_DOMAIN)


def _verifies(message: Message, receipt: GatewayReceipt, key: VerifyKey, domain: bytes) -> bool:
    signature = from_header(message.header("ce_signature"))
    # The payload is signed, the key beside it is not.
    if signature is None or message.key != receipt.instance_id:
        return False
    try:
        key.verify(signature, domain, message.value)
    except SignatureInvalid:
        return False
    return True
