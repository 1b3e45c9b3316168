"""Instances as policy signed them, and receipts as messages of their topic: without a broker."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from shared import topics
from shared.bus.cloudevents import Message, encode
from shared.bus.signatures import record_signer, to_header
from shared.crypto.signing import SigningKey
from shared.delivery.receipts import ATTESTED_DOMAIN, RECEIPT_DOMAIN, Resolvers
from shared.events.contract import Contract, StateRecord
from shared.events.policy import DeliveryProfile, InstanceRecord, InstanceState, TickRecord
from shared.events.receipts import EndedLease, Finding, GatewayReceipt, ResolverReceipt
from shared.projection.changes import Removed, Upserted, Why
from shared.projection.instances import Instances, apply_change
from shared.projection.records import Authority, TypedRecord

T0 = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


def ms(at: datetime) -> int:
    """As Kafka counts."""
    return int(at.timestamp() * 1000)


def read(contract: Contract, *, key: str | None, offset: int = 0, at: datetime = T0, **headers: str) -> Message:
    """The message as a reader of its topic gets it."""
    trace = headers.pop("traceparent", None)
    sent = encode(contract, key=key, source="test", event_id="1", traceparent=trace, extensions=headers)
    return replace(sent, offset=offset, timestamp_ms=ms(at))


@dataclass
class Gateway:
    """One instance with a key of its own; `run` is one life of it."""

    id: str
    key: SigningKey = field(default_factory=SigningKey.generate)
    run: str = "run/1"
    n: int = 0
    https: bool = False

    def receipt(
        self,
        *,
        applied: int = 0,
        dropped: int | None = None,
        leases: int = 0,
        at: datetime = T0,
        key: SigningKey | None = None,
        ended: tuple[EndedLease, ...] = (),
        released: tuple[str, ...] = (),
        findings: tuple[Finding, ...] = (),
        under: str | None = None,
        domain: bytes = RECEIPT_DOMAIN,
    ) -> Message:
        receipt = GatewayReceipt(
            instance_id=self.id,
            run=self.run,
            n=self.n,
            applied_offset=applied,
            dropped_offset=applied if dropped is None else dropped,
            open_leases=leases,
            ended=ended,
            released=released,
            findings=findings,
            at=at,
        )
        self.n += 1
        signer = key or self.key
        signature = to_header(signer.sign(domain, receipt.to_json()))
        return read(receipt, key=self.id if under is None else under, at=at, signature=signature, keyid=signer.key_id)


def resolver_receipt(*, at: datetime = T0, **more: Any) -> Message:
    fields = {"replica_id": "resolver-1", "run": "run/r1", "policy_seq": 5, "catalog_seq": 6, "fresh": True, "at": at}
    receipt = ResolverReceipt.model_validate(fields | more)
    return read(receipt, key=receipt.replica_id, at=at)


class Enrolled:
    """Policy as a projection shows it. `unseen` are records that the next `caught_up` brings."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.authority = Authority({self.key.key_id: self.key.verify_key})
        self.resolver_key = SigningKey.generate()
        self.resolvers = Resolvers({self.resolver_key.key_id: self.resolver_key.verify_key})
        self.snapshot = Instances()
        self.unseen: list[StateRecord] = []
        self.asked = 0
        self.failing: list[Exception] = []
        self.seq = 0

    def enrol(self, name: str, *, seen: bool = True, by: SigningKey | None = None, https: bool = False) -> Gateway:
        gateway = Gateway(f"instance/{name}-{secrets.token_hex(4)}", https=https)
        self.put(self.record(gateway, name=name), seen=seen, by=by)
        return gateway

    def attested(self, gateway: Gateway, *, by: SigningKey | None = None, **said: Any) -> Message:
        """A receipt as a resolver passes it on."""
        return gateway.receipt(key=by or self.resolver_key, domain=ATTESTED_DOMAIN, **said)

    def record(self, gateway: Gateway, **more: Any) -> InstanceRecord:
        self.seq += 1
        fields = {
            "id": gateway.id,
            "seq": self.seq,
            "revision": 1,
            "name": "gateway",
            "signing_key": gateway.key.verify_key.to_base64(),
            "sealing_key": gateway.key.verify_key.to_base64(),
            "sealing_certificate": "x",
            "allowed_servers": (),
            "enrolled_at": T0,
        }
        if gateway.https:
            fields |= {"signing_key": "", "sealing_key": "", "sealing_certificate": ""}
            fields |= {"delivery": DeliveryProfile.HTTPS, "certificate": "AA"}
        return InstanceRecord.model_validate(fields | more)

    def ban(self, gateway: Gateway, *, name: str = "gateway") -> int:
        record = self.record(gateway, name=name, state=InstanceState.BANNED, revision=2)
        self.put(record)
        return record.seq

    def remove(self, gateway: Gateway) -> None:
        self.snapshot = apply_change(self.snapshot, Removed(gateway.id, InstanceRecord.TYPE, Why.DELETED))

    def tick(self, *, by: SigningKey | None = None) -> TypedRecord:
        self.seq += 1
        record = TickRecord(id="tick", seq=self.seq, revision=self.seq, at=T0, digest="0" * 64)
        return self.put(record, by=by)

    def put(self, record: StateRecord, *, seen: bool = True, by: SigningKey | None = None) -> TypedRecord:
        if not seen:
            self.unseen.append(record)
        payload = record.to_json()
        signer = record_signer(by or self.key)
        key_id, signature = signer(topic=topics.POLICY, type_=record.TYPE, key=record.id, payload=payload)
        typed = TypedRecord(
            topic=topics.POLICY,
            key=record.id,
            type=record.TYPE,
            seq=record.seq,
            record=record,
            payload=payload,
            signed=to_header(signature),
            key_id=key_id,
        )
        if seen:
            self.snapshot = apply_change(self.snapshot, Upserted(typed))
        return typed

    async def caught_up(self) -> None:
        self.asked += 1
        if self.failing:
            raise self.failing.pop(0)
        for record in self.unseen:
            self.put(record)
        self.unseen.clear()
