"""Receipts that come over HTTP, into the topic where those of all instances stand.

The instance is the certificate's and never the body's, and this resolver says so by its signature. What the receipt
claims is the instance's own word; only what no honest instance could say is refused.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from services.resolver.https_only.feed import NoticeFeed
from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import to_header
from shared.crypto.signing import SigningKey
from shared.delivery.https_only import PostedReceipt
from shared.delivery.receipts import ATTESTED_DOMAIN
from shared.errors import NotFresh, Unavailable
from shared.events.receipts import GatewayReceipt

REACH_WITHIN_S: Final = 1.0
AT_ONCE: Final = 4
"""Receipts of one instance that may be on their way."""

Publish = Callable[[Message], Awaitable[None]]


@dataclass(slots=True)
class Inbox:
    """Takes receipts of instances that proved their certificate."""

    feed: NoticeFeed
    key: SigningKey
    publish: Publish
    """Returns when the message is durable; `Unavailable` when it isn't in time."""
    _under_way: Counter[str] = field(default_factory=Counter)

    async def take(self, instance_id: str, posted: PostedReceipt) -> None:
        """Have a receipt stand in the topic; `Unavailable` when that isn't certain, and it may be posted again."""
        if self._under_way[instance_id] >= AT_ONCE:
            raise Unavailable("Too many receipts of this instance are on their way: wait for their answers.")
        self._under_way[instance_id] += 1
        try:
            # Nobody has applied what was not said yet: believed, it would pass for an answer to all notices to come.
            if not await self.feed.reach(posted.applied_offset, within_s=REACH_WITHIN_S):
                raise NotFresh("This replica has not read as far as the receipt says that you have.")
            await self.publish(attested(posted.of(instance_id), self.key))
        finally:
            self._under_way[instance_id] -= 1
            # A counter keeps its zeros: one for each instance that ever posted.
            if not self._under_way[instance_id]:
                del self._under_way[instance_id]


def attested(receipt: GatewayReceipt, key: SigningKey) -> Message:
    """A receipt with a resolver's word for whose it is (`shared.delivery.receipts`)."""
    payload = receipt.to_json()
    return encode(
        receipt,
        # One partition for an instance, as for all others: receipts of one must not overtake each other.
        key=receipt.instance_id,
        source="keyfob/resolver",
        event_id=str(uuid.uuid4()),
        extensions={"signature": to_header(key.sign(ATTESTED_DOMAIN, payload)), "keyid": key.key_id},
        payload=payload,
    )
