"""Receipts: the instance's signed word on how far it has come. Cumulative, at once for holders, else each second.

Signed is the payload exactly as it is on the wire, under the domain `keyfob/receipt/v1`; signature and key id travel
as the CloudEvents extensions `signature` (base64url) and `keyid`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from services.gateway.client.ledger import Ledger
from shared.bus.cloudevents import Message, encode
from shared.crypto.framing import to_base64url
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import RECEIPT_DOMAIN
from shared.errors import Unavailable
from shared.events.receipts import MOST_TOLD, GatewayReceipt

DEFAULT_HEARTBEAT_S: Final = 1.0

Publish = Callable[[Message], Awaitable[None]]
"""The port: returns once the message is durable; `Unavailable` when that is not certain."""

_log = structlog.get_logger(__name__)


def sign_receipt(receipt: GatewayReceipt, key: SigningKey, *, traceparent: str | None = None) -> Message:
    """The message that carries a receipt to its topic."""
    payload = receipt.to_json()
    return encode(
        receipt,
        payload=payload,
        key=receipt.instance_id,
        source=f"/{receipt.instance_id}",
        event_id=f"{receipt.run}/{receipt.n}",
        time=receipt.at,
        traceparent=traceparent,
        extensions={
            "signature": to_base64url(key.sign(RECEIPT_DOMAIN, payload)),
            "keyid": key.key_id,
        },
    )


@dataclass(slots=True)
class ReceiptWriter:
    """Writes the receipts of one run of an instance, one at a time."""

    ledger: Ledger
    instance_id: str
    key: SigningKey
    publish: Publish
    heartbeat_s: float = DEFAULT_HEARTBEAT_S
    variables: tuple[str, ...] = ()
    run_id: str = field(default_factory=lambda: f"run/{secrets.token_hex(16)}")
    trouble: str | None = "no receipt was written yet"
    _n: int = 0
    _due: asyncio.Event = field(default_factory=asyncio.Event)
    _traceparent: str | None = None

    def hurry(self, traceparent: str | None = None) -> None:
        """Something that we held was fenced or dropped: do not wait for the heartbeat."""
        self._traceparent = traceparent or self._traceparent
        self._due.set()

    async def run(self) -> None:
        """Write for ever; cancel to stop. A receipt that is not certain to be there is told again by the next."""
        while True:
            await self.write()
            try:
                async with asyncio.timeout(self.heartbeat_s):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def write(self) -> bool:
        """Write one receipt now; whether it is durable."""
        # Before looking at the ledger: what changes while it is written is due again.
        self._due.clear()
        traceparent, self._traceparent = self._traceparent, None
        receipt = self._next()
        try:
            await self.publish(sign_receipt(receipt, self.key, traceparent=traceparent))
        except Unavailable as error:
            self.trouble = error.detail
            _log.warning("receipt not written", reason=error.detail)
            return False
        self.trouble = None
        # Only what stood in it: more may have ended while it was on its way.
        self.ledger.reported(len(receipt.ended), len(receipt.released), len(receipt.findings))
        if len(self.ledger.unreported()[0]) > 0:
            self._due.set()
        return True

    def _next(self) -> GatewayReceipt:
        progress = self.ledger.progress()
        ended, released = self.ledger.unreported()
        at = datetime.now(UTC)
        # Also where publishing fails: it may have arrived all the same, and two with one number would differ.
        n, self._n = self._n, self._n + 1
        return GatewayReceipt(
            instance_id=self.instance_id,
            run=self.run_id,
            n=n,
            applied_offset=progress.applied_offset,
            dropped_offset=progress.dropped_offset,
            open_leases=progress.open_leases,
            ended=ended[:MOST_TOLD],
            released=released[:MOST_TOLD],
            variables=self.variables,
            findings=self.ledger.findings(at)[:MOST_TOLD],
            at=at,
        )
