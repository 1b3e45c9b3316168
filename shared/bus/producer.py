"""A producer that, once given up, sends nothing any more.

aiokafka's `stop` first sends what is left. Cut short, because the broker is away, it leaves its background tasks at
work: they send, and even commit a transaction, whenever the broker is back, beside the producer that took over.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from aiokafka import AIOKafkaProducer
from aiokafka.producer.transaction_manager import TransactionState

NUDGE_S = 0.1


class EndingProducer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka is not typed
    """aiokafka's producer; a `stop` that is cancelled ends it all the same, and drops what it had not sent."""

    _closed: bool

    async def stop(self) -> None:
        """Send what is left, end the transaction and disconnect; cancel it to drop what is left."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._message_accumulator.close()
            await self._end_transaction()
        finally:
            self.client.send = _no_more
            await _end(self._sender and self._sender.sender_task)
            await self.client.close()

    async def _end_transaction(self) -> None:
        """Carry a commit that somebody stopped waiting for to its end, and abort what nobody asked to commit.

        Whoever takes the transactional id would do that too, but the embedded broker forgets over a restart whose a
        transaction is.
        """
        manager = self._txn_manager
        if manager is None or manager.transactional_id is None:
            return
        if manager.state in {TransactionState.IN_TRANSACTION, TransactionState.ABORTABLE_ERROR}:
            manager.aborting_transaction()
        if manager.needs_transaction_commit() is not None:
            ends = {manager.wait_for_transaction_end(), self._sender.sender_task}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)


async def _no_more(*_: Any, **__: Any) -> NoReturn:
    """Stand in for a client's `send`: whoever still wants to send is cancelled."""
    raise asyncio.CancelledError


async def _end(sender: asyncio.Task[None] | None) -> None:
    while sender is not None and not sender.done():
        # Cancelled once it waits for a request on its way; cancelled again it stops that as well.
        sender.cancel()
        await asyncio.wait({sender}, timeout=NUDGE_S)
