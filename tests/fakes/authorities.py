"""Policy and gateways as the bus knows them: signed instances and ticks, signed receipts, and readers of topics."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition

from shared.bus.cloudevents import Message, encode, received
from shared.bus.connection import KafkaSettings, disconnect, publish
from shared.bus.signatures import record_signer, to_header
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import RECEIPT_DOMAIN
from shared.events.contract import Contract
from shared.events.policy import InstanceRecord, InstanceState, PolicyRecord, TickRecord
from shared.events.receipts import EndedLease, GatewayReceipt, ResolverReceipt

ZEROS = "0" * 64


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Bus:
    """One producer on the test's broker, and readers of whole topics."""

    kafka: KafkaSettings
    producer: AIOKafkaProducer

    async def send(
        self, contract: Contract, *, key: str | None, event_id: str | None = None, traceparent: str | None = None
    ) -> int:
        """Publish; the offset."""
        return await self.post(
            encode(
                contract,
                key=key,
                source="test",
                event_id=event_id or secrets.token_hex(8),
                traceparent=traceparent,
            )
        )

    async def post(self, message: Message) -> int:
        _, offset = await publish(self.producer, message, deadline_s=5)
        return offset

    async def all_of(self, topic: str) -> list[Message]:
        """Every message that is in the topic now, partition by partition."""
        consumer = self.kafka.consumer(group_id=None)
        try:
            await consumer.start()
            await consumer._client.force_metadata_update()
            partitions = [
                TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())
            ]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
            found: list[Message] = []
            for partition in partitions:
                while await consumer.position(partition) < ends[partition]:
                    records = await consumer.getmany(partition, timeout_ms=200)
                    found += [received(record) for batch in records.values() for record in batch]
            return found
        finally:
            await disconnect(consumer)


@dataclass(slots=True)
class FakePolicy:
    """Publishes instances and ticks, signed as policy does, one commit each."""

    bus: Bus
    key: SigningKey = field(default_factory=SigningKey.generate)
    _seq: Any = field(default_factory=lambda: count(1))

    async def enrol(self, name: str) -> FakeGateway:
        """A new instance; its record is in the topic when this returns."""
        gateway = FakeGateway(self.bus, f"instance/{secrets.token_hex(16)}", name)
        await self.put(self.instance(gateway))
        return gateway

    def instance(self, gateway: FakeGateway, **more: Any) -> InstanceRecord:
        fields = {
            "id": gateway.id,
            "seq": self.next_seq(),
            "revision": 1,
            "name": gateway.name,
            "signing_key": gateway.key.verify_key.to_base64(),
            "sealing_key": gateway.key.verify_key.to_base64(),
            "sealing_certificate": "x",
            "allowed_servers": (),
            "enrolled_at": now(),
        }
        return InstanceRecord.model_validate(fields | more)

    async def ban(self, gateway: FakeGateway) -> int:
        """The commit that banned it."""
        record = self.instance(gateway, state=InstanceState.BANNED, revision=2)
        await self.put(record)
        return record.seq

    async def remove(self, gateway: FakeGateway) -> int:
        record = self.instance(gateway, deleted=True, revision=3)
        await self.put(record)
        return record.seq

    async def tick(self) -> TickRecord:
        seq = self.next_seq()
        record = TickRecord(id="tick", seq=seq, revision=seq, at=now(), digest=ZEROS)
        await self.put(record)
        return record

    def next_seq(self) -> int:
        return int(next(self._seq))

    async def put(self, record: PolicyRecord, *, key: SigningKey | None = None) -> None:
        payload = record.to_json()
        sign = record_signer(key or self.key)
        key_id, signature = sign(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        extensions = {
            "commitseq": str(record.seq),
            "commitpart": "1/1",
            "keyid": key_id,
            "signature": to_header(signature),
        }
        await self.bus.post(
            encode(
                record,
                key=record.id,
                source="keyfob/policy",
                event_id=secrets.token_hex(8),
                extensions=extensions,
                payload=payload,
            )
        )


@dataclass(slots=True)
class FakeGateway:
    """Writes the receipts that a test wants it to write."""

    bus: Bus
    id: str
    name: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    run: str = field(default_factory=lambda: f"run/{secrets.token_hex(8)}")
    n: int = 0

    def restart(self) -> None:
        self.run, self.n = f"run/{secrets.token_hex(8)}", 0

    async def receipt(
        self,
        *,
        applied: int,
        dropped: int | None = None,
        leases: int = 0,
        ended: Sequence[EndedLease] = (),
        released: Sequence[str] = (),
        key: SigningKey | None = None,
    ) -> None:
        """Say how far it has come, signed with its own key unless another is given."""
        receipt = GatewayReceipt(
            instance_id=self.id,
            run=self.run,
            n=self.n,
            applied_offset=applied,
            dropped_offset=applied if dropped is None else dropped,
            open_leases=leases,
            ended=tuple(ended),
            released=tuple(released),
            at=now(),
        )
        self.n += 1
        signature = (key or self.key).sign(RECEIPT_DOMAIN, receipt.to_json())
        await self.bus.post(
            encode(
                receipt,
                key=self.id,
                source=f"/{self.id}",
                event_id=f"{receipt.run}/{receipt.n}",
                extensions={"signature": to_header(signature)},
            )
        )


async def resolver_receipt(bus: Bus, **more: Any) -> None:
    """A resolver replica's word on how far it has come."""
    fields = {"replica_id": "resolver-1", "run": "run/r1", "policy_seq": 0, "catalog_seq": 0, "fresh": True}
    receipt = ResolverReceipt.model_validate(fields | more | {"at": now()})
    await bus.send(receipt, key=receipt.replica_id)
