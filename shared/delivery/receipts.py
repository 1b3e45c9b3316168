"""Whether a gateway's receipt is really its own.

An instance signs the payload of its receipt, exactly as it is on the wire, under the domain `keyfob/receipt/v1`; the
signature travels as base64url without padding in `ce_signature`. A receipt also stands under its instance's id as
the message's key: otherwise receipts of one instance could overtake each other in different partitions.
"""

from __future__ import annotations

from typing import Final

from shared.bus.cloudevents import Message
from shared.bus.signatures import from_header
from shared.crypto.signing import VerifyKey
from shared.errors import SignatureInvalid
from shared.events.receipts import GatewayReceipt

RECEIPT_DOMAIN: Final = b"keyfob/receipt/v1"


def receipt_verifies(message: Message, receipt: GatewayReceipt, key: VerifyKey) -> bool:
    """Whether `message`, which holds `receipt`, was signed by `key` and stands where that instance's receipts do."""
    signature = from_header(message.header("ce_signature"))
    # The payload is signed, the key beside it is not.
    if signature is None or message.key != receipt.instance_id:
        return False
    try:
        key.verify(signature, RECEIPT_DOMAIN, message.value)
    except SignatureInvalid:
        return False
    return True
