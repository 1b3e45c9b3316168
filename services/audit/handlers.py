"""Events in, records out: one transaction a batch, in which numbering, leases and stream checks stand or fall together.

Batches, because each resolve makes two records: at a thousand resolves a second a transaction each would fall
behind, while one of five hundred costs little more than one of one. Serial within a partition, so that a stream is
seen in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from services.audit.domain.entries import Entry, access_entry, alert_entry, lease_entries, policy_entry, vault_entry
from services.audit.domain.leases import Ended, LeaseFact, facts_of
from services.audit.domain.ports import Clock, Transaction
from services.audit.domain.streams import BEFORE_FIRST, Broken, Head, Repeated, broken_entry, follow
from shared.bus.cloudevents import Message, decode
from shared.bus.effects import Ack, Outcome
from shared.crypto.signing import VerifyKey
from shared.delivery.receipts import receipt_verifies
from shared.events.access import AccessRecord
from shared.events.alerts import Alert
from shared.events.changes import PolicyChange, VaultChange
from shared.events.receipts import GatewayReceipt

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signer:
    """An enrolled instance, as policy signed it."""

    name: str
    key: VerifyKey


@dataclass(frozen=True, slots=True)
class AccessTrail:
    """Access records, with the leases that they open and the check that no stream has a gap."""

    begin: Transaction
    clock: Clock

    async def on_access(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no access record."""
        read = [(decode(message, AccessRecord), message.value) for message in messages]
        async with self.begin() as journal:
            known = await journal.heads({record.stream for record, _ in read})
            entries, facts, heads = self._judge(read, dict(known))
            await journal.write(entries)
            await journal.apply(facts)
            await journal.keep_heads(heads)
        return Ack()

    def _judge(
        self, read: list[tuple[AccessRecord, bytes]], heads: dict[str, Head]
    ) -> tuple[list[Entry], list[LeaseFact], dict[str, Head]]:
        entries: list[Entry] = []
        facts: list[LeaseFact] = []
        for record, payload in read:
            finding = follow(heads.get(record.stream, BEFORE_FIRST), record, payload)
            if isinstance(finding, Repeated):
                continue
            if isinstance(finding, Broken):
                _log.error("access-stream-broken", stream=record.stream, n=record.n, reason=finding.reason)
                entries.append(broken_entry(record, finding, at=self.clock()))
            heads[record.stream] = finding.head
            entries.append(access_entry(record))
            facts += facts_of(record)
        return entries, facts, heads


@dataclass(frozen=True, slots=True)
class ChangeTrail:
    """What happened to references and assignments, and what people were told."""

    begin: Transaction

    async def on_vault_changes(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no change of a reference."""
        return await self._record([vault_entry(decode(message, VaultChange)) for message in messages])

    async def on_policy_changes(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no change of policy."""
        return await self._record([policy_entry(decode(message, PolicyChange)) for message in messages])

    async def on_alerts(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no alert."""
        return await self._record([alert_entry(decode(message, Alert)) for message in messages])

    async def _record(self, entries: list[Entry]) -> Outcome:
        async with self.begin() as journal:
            await journal.write(entries)
        return Ack()


@dataclass(frozen=True, slots=True)
class ReceiptTrail:
    """Leases that gateways say are over. Only an instance's own, signed word ends a lease."""

    begin: Transaction
    signer_of: Callable[[str], Signer | None]

    async def on_receipts(self, messages: tuple[Message, ...]) -> Outcome:
        """Record the ends. Raises `Unreadable` for a gateway's receipt that is none."""
        entries: list[Entry] = []
        facts: list[LeaseFact] = []
        for message in messages:
            if message.type != GatewayReceipt.TYPE:
                continue
            receipt = decode(message, GatewayReceipt)
            if not receipt.ended:
                continue
            signer = self.signer_of(receipt.instance_id)
            if signer is None or not receipt_verifies(message, receipt, signer.key):
                # The notifier raises the alarm; here a lease only stays open until it expires.
                _log.warning("receipt-not-believed", instance=receipt.instance_id)
                continue
            entries += lease_entries(receipt, instance_name=signer.name)
            facts += [
                Ended(lease_id=one.lease_id, instance_id=receipt.instance_id, at=one.at, why=one.why)
                for one in receipt.ended
            ]
        if entries:
            async with self.begin() as journal:
                await journal.write(entries)
                await journal.apply(facts)
        return Ack()
