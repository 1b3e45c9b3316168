"""The answer to one resolve: leases, values, the signed definition; sealed to the instance and signed by us."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.resolver.domain.decision import Item, Plan
from services.resolver.records import Position
from services.resolver.sources.port import ReadValue
from shared.crypto.sealing import SealingPublicKey
from shared.crypto.signing import SigningKey
from shared.delivery import messages as m
from shared.delivery import seal_answer
from shared.events.access import AccessItem
from shared.identity import Subject


@dataclass(frozen=True, slots=True)
class Lease:
    """That an instance may hold one item's value; `expires_at` in seconds since 1970."""

    id: str
    item: Item
    expires_at: float

    def recorded(self, version: str | None = None) -> AccessItem:
        """As an access record tells it."""
        reference = self.item.reference
        return AccessItem(
            field=self.item.field,
            reference_id=reference.id,
            reference_name=reference.name,
            source_id=self.item.source.id,
            version=version,
            lease_id=self.id,
            expires_at=datetime.fromtimestamp(self.expires_at, UTC),
            rests_on=self.item.rests_on,
        )


def grant_leases(plan: Plan, subject: Subject, *, now: float, ttl_s: float) -> tuple[Lease, ...]:
    """A lease for each item: at most `ttl_s` long, and never beyond the token or the grant."""
    return tuple(
        Lease(f"lease/{secrets.token_hex(16)}", item, _expiry(item, min(now + ttl_s, subject.expires_at)))
        for item in plan.items
    )


def renew(leases: Sequence[Lease], plan: Plan) -> tuple[Lease, ...]:
    """The same leases for the same items as a later decision has them: a grant may end sooner by now."""
    return tuple(
        Lease(lease.id, item, _expiry(item, lease.expires_at)) for lease, item in zip(leases, plan.items, strict=True)
    )


def _expiry(item: Item, latest: float) -> float:
    return latest if item.ends_at is None else min(latest, item.ends_at.timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Everything that goes into one answer."""

    plan: Plan
    subject: Subject
    leases: tuple[Lease, ...]
    values: tuple[ReadValue, ...]
    record: Position

    def sealed(self, *, to: SealingPublicKey, by: SigningKey, request_hash: bytes) -> bytes:
        """The envelope. The plain payload is overwritten before this returns; the caller wipes the values."""
        payload = m.encode_answer(self._answer())
        try:
            return seal_answer(
                payload,
                instance_id=self.plan.instance.id,
                instance_hpke_public=to,
                resolver_signing_key=by,
                request_hash=request_hash,
            )
        finally:
            payload[:] = bytes(len(payload))

    def _answer(self) -> m.ResolveAnswer:
        plan, evidence = self.plan, self.plan.server.evidence
        return m.ResolveAnswer(
            record=m.RecordPosition(stream=self.record.stream, n=self.record.n, hash=self.record.hash),
            floor=m.ReachedFloor(policy=plan.floor.policy, catalog=plan.floor.catalog),
            subject=m.SubjectName(idp_id=self.subject.idp_id, subject=self.subject.subject),
            subject_expires_at=self.subject.expires_at,
            context=m.ContextName(profile_id=plan.profile.id, name=plan.profile.name),
            server_id=plan.server.id,
            server=m.SignedRecord(
                type=evidence.type,
                payload=evidence.payload,
                signature=evidence.signature or b"",
                key_id=evidence.key_id or "",
            ),
            definition_digest=plan.server.digest,
            fields=[_field(lease, value) for lease, value in zip(self.leases, self.values, strict=True)],
        )


def _field(lease: Lease, value: ReadValue) -> m.ResolvedField:
    return m.ResolvedField(
        name=lease.item.field,
        value=value.secret,
        lease=m.Lease(
            id=lease.id,
            reference_id=lease.item.reference.id,
            version=value.version,
            expires_at=lease.expires_at,
            rests_on=lease.item.rests_on,
        ),
    )
