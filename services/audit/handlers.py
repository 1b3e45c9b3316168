"""Events in, records out: one transaction a batch, in which numbering, leases and stream checks stand or fall together.

Batches, because each resolve makes two records: at a thousand resolves a second a transaction each would fall
behind, while one of five hundred costs little more than one of one. Serial within a partition, so that a stream is
seen in its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from services.audit.domain.custody import CustodyChange, custody_entry
from services.audit.domain.echoes import compare, contradiction, echoes_of
from services.audit.domain.entries import (
    Entry,
    access_entry,
    access_key,
    alert_entry,
    finding_entries,
    lease_entries,
    policy_entry,
    vault_entry,
)
from services.audit.domain.leases import Ended, LeaseFact, Opened, facts_of
from services.audit.domain.ports import Clock, Instances, Journal, Transaction
from services.audit.domain.sightings import repetitions, sighting_of, twice_entry
from services.audit.domain.streams import (
    BEFORE_FIRST,
    FORK,
    Broken,
    Continues,
    Forked,
    Head,
    Repeated,
    broken_entry,
    follow,
    payload_hash,
)
from shared.bus.cloudevents import Message, decode
from shared.bus.effects import Ack, Outcome
from shared.events.access import AccessRecord
from shared.events.alerts import Alert
from shared.events.changes import PolicyChange, VaultChange
from shared.events.custody import KeyChange, ValueChange
from shared.events.receipts import GatewayReceipt

TRACEPARENT_PARTS: Final = 4
"""Version, trace id, parent id and flags (W3C Trace Context, section 3.2)."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """One access record and the hash of its payload as it was on the wire."""

    record: AccessRecord
    digest: str

    @property
    def key(self) -> str:
        """What makes it the same one when it comes again."""
        return access_key(self.record.stream, self.record.n)


@dataclass(frozen=True, slots=True)
class AccessTrail:
    """Access records, with the leases that they open and the check that no stream has a gap."""

    begin: Transaction
    clock: Clock

    async def on_access(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no access record."""
        read = [Read(decode(message, AccessRecord), payload_hash(message.value)) for message in messages]
        async with self.begin() as journal:
            # Locked: a rebalance may hand the same partition to another replica while this one still works on it.
            heads = dict(await journal.heads({one.record.stream for one in read}))
            # Only those can be on record already, so the usual batch asks for none.
            behind = [one.key for one in read if one.record.n <= heads.get(one.record.stream, BEFORE_FIRST).n]
            recorded = dict(await journal.hashes(behind)) if behind else {}
            entries, facts, new = self._judge(read, heads, recorded)
            await journal.write(entries)
            await self._look_for_repetitions(journal, new)
            await journal.apply(facts)
            # With the records, in one transaction: a head that ran ahead of them would call the rest missing.
            await journal.keep_heads(heads)
        return Ack()

    def _judge(
        self, read: list[Read], heads: dict[str, Head], recorded: dict[str, str]
    ) -> tuple[list[Entry], list[LeaseFact], list[AccessRecord]]:
        """What to record, and which of the records are new; `heads` and `recorded` move on with each record."""
        entries: list[Entry] = []
        facts: list[LeaseFact] = []
        new: list[AccessRecord] = []
        for one in read:
            record = one.record
            head = heads.get(record.stream, BEFORE_FIRST)
            match follow(head, record, digest=one.digest, recorded=recorded.get(one.key)):
                case Repeated():
                    continue
                case Forked(detail):
                    entries.append(self._alarm(record, FORK, detail))
                    continue
                case Broken(head, reason, detail):
                    entries.append(self._alarm(record, reason, detail))
                case Continues(head):
                    pass
            # Within a batch too: a repetition or a fork may stand right behind its original.
            heads[record.stream], recorded[one.key] = head, one.digest
            entries.append(access_entry(record, digest=one.digest))
            facts += facts_of(record)
            new.append(record)
        return entries, facts, new

    async def _look_for_repetitions(self, journal: Journal, records: list[AccessRecord]) -> None:
        """Raise the alarm where a request came with an assertion that another one had come with."""
        sightings = [found for record in records if (found := sighting_of(record)) is not None]
        twice = repetitions(records, await journal.sight(sightings, at=self.clock()))
        for record in twice:
            _log.error("assertion-seen-twice", instance=record.instance_id, stream=record.stream, n=record.n)
        await journal.write([twice_entry(record, at=self.clock()) for record in twice])

    def _alarm(self, record: AccessRecord, reason: str, detail: str) -> Entry:
        _log.error("access-stream-broken", stream=record.stream, n=record.n, reason=reason)
        return broken_entry(record, reason=reason, detail=detail, at=self.clock())


@dataclass(frozen=True, slots=True)
class ChangeTrail:
    """What happened to references and assignments, and what people were told."""

    begin: Transaction

    async def on_vault_changes(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no change of a reference."""
        return await self._record(
            [vault_entry(decode(message, VaultChange), trace_id=trace_id_of(message)) for message in messages]
        )

    async def on_policy_changes(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no change of policy."""
        return await self._record(
            [policy_entry(decode(message, PolicyChange), trace_id=trace_id_of(message)) for message in messages]
        )

    async def on_custody_changes(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no change of a key or of a local value."""
        return await self._record(
            [custody_entry(_custody_change(message), trace_id=trace_id_of(message)) for message in messages]
        )

    async def on_alerts(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for one that is no alert."""
        return await self._record(
            [alert_entry(decode(message, Alert), trace_id=trace_id_of(message)) for message in messages]
        )

    async def _record(self, entries: list[Entry]) -> Outcome:
        async with self.begin() as journal:
            await journal.write(entries)
        return Ack()


def _custody_change(message: Message) -> CustodyChange:
    return decode(message, KeyChange) if message.type == KeyChange.TYPE else decode(message, ValueChange)


@dataclass(frozen=True, slots=True)
class ReceiptTrail:
    """Leases that gateways say are over, and records that they were told of.

    Only an instance's own, signed word counts. What does not verify is passed over: the notifier raises the alarm, and
    here a lease stays open until it expires.
    """

    begin: Transaction
    instances: Instances
    clock: Clock

    async def on_receipts(self, messages: tuple[Message, ...]) -> Outcome:
        """Record them. Raises `Unreadable` for a gateway's receipt that is none."""
        # Most receipts are heartbeats, one a second and instance: they are left before any signature is looked at.
        said = [
            (message, receipt)
            for message in messages
            if message.type == GatewayReceipt.TYPE
            and ((receipt := decode(message, GatewayReceipt)).ended or receipt.released or receipt.findings)
        ]
        # Asked once for a whole batch: strangers must not make each of their receipts a question to the broker.
        if any(self.instances.signer_of(receipt.instance_id) is None for _, receipt in said):
            # Perhaps it was enrolled a moment ago.
            await self.instances.caught_up()
        genuine = [one for message, receipt in said if (one := self._genuine(message, receipt)) is not None]
        if genuine:
            async with self.begin() as journal:
                await self._record(journal, genuine)
        return Ack()

    def _genuine(self, message: Message, receipt: GatewayReceipt) -> Genuine | None:
        signer = self.instances.signer_of(receipt.instance_id)
        if signer is None or not signer.voucher.vouches(message, receipt):
            _log.warning("receipt-not-believed", instance=receipt.instance_id)
            return None
        return Genuine(receipt, signer.name, trace_id_of(message))

    async def _record(self, journal: Journal, genuine: list[Genuine]) -> None:
        # The receipt names only ids; whose lease it was and for what stands in the record that opened it.
        leases = await journal.opened({lease_id for one in genuine for lease_id in one.leases()})
        entries = [entry for one in genuine for entry in one.entries(leases)]
        echoes = [echo for one in genuine for echo in echoes_of(one.receipt)]
        compared = compare(echoes, await journal.hashes({echo.key for echo in echoes}))
        # Contradictions at once; what is missing may only be late, since the topics are different ones (`watching`).
        await journal.write([*entries, *map(contradiction, compared.contradicted)])
        await journal.apply([fact for one in genuine for fact in one.facts()])
        await journal.await_records(compared.missing, since=self.clock())


@dataclass(frozen=True, slots=True)
class Genuine:
    """A receipt that was really signed by its instance."""

    receipt: GatewayReceipt
    instance_name: str
    trace_id: str

    def entries(self, leases: Mapping[str, Opened]) -> Iterable[Entry]:
        """What it ended and what it found, for the log."""
        yield from lease_entries(self.receipt, instance_name=self.instance_name, leases=leases, trace_id=self.trace_id)
        yield from finding_entries(
            self.receipt, instance_name=self.instance_name, leases=leases, trace_id=self.trace_id
        )

    def leases(self) -> Iterable[str]:
        """The ids of all leases that it speaks of."""
        yield from (ended.lease_id for ended in self.receipt.ended)
        yield from (finding.lease_id for finding in self.receipt.findings)

    def facts(self) -> Iterable[LeaseFact]:
        """What it ended, for who holds what."""
        return (
            Ended(lease_id=one.lease_id, instance_id=self.receipt.instance_id, at=one.at, why=one.why)
            for one in self.receipt.ended
        )


def trace_id_of(message: Message) -> str:
    """The trace id of a message's W3C `traceparent`; empty when there is none."""
    parts = (message.header("traceparent") or "").split("-")
    return parts[1] if len(parts) == TRACEPARENT_PARTS else ""
