"""The answer to one resolve: leases, values, the signed definition; sealed to the instance and signed by us.

The payload is written here and not by the contract's model, which takes three times as long; a test holds the two
together. Until it is sealed a value is also in the text and the JSON that it is written to: short-lived copies that
Python does not let us overwrite.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from services.resolver.domain.decision import Item, Plan
from services.resolver.domain.facts import Evidence
from services.resolver.domain.plans import InstanceVariable
from services.resolver.entries import RecordedItem
from services.resolver.records import Position
from services.resolver.sources.port import ReadValue
from shared.crypto.framing import to_base64url
from shared.crypto.sealing import SealingPublicKey
from shared.crypto.signing import SigningKey
from shared.delivery import seal_answer
from shared.delivery.messages import IN_PLACE
from shared.errors import KeyfobError
from shared.identity import Subject


@dataclass(frozen=True, slots=True)
class Lease:
    """That an instance may hold one item's value; `expires_at` in seconds since 1970."""

    id: str
    item: Item
    expires_at: float

    def recorded(self, version: str | None) -> RecordedItem:
        """As an access record tells it."""
        item = self.item
        return RecordedItem(
            field=item.field,
            reference_id=item.place.id,
            reference_name=item.place.name,
            source_id=item.place.source_id,
            version=version,
            lease_id=self.id,
            expires_at=self.expires_at,
            rests_on=item.rests_on,
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
    values: tuple[ReadValue | None, ...]
    record: Position

    def sealed(self, *, to: SealingPublicKey, by: SigningKey, request_hash: bytes) -> bytes:
        """The envelope. The plain payload is overwritten before this returns; the caller wipes the values."""
        payload = bytearray(self.payload())
        try:
            return seal_answer(
                payload,
                instance_id=self.plan.instance.id,
                instance_hpke_public=to,
                resolver_signing_key=by,
                request_hash=request_hash,
            )
        finally:
            # In place: a new object would leave the old bytes where they are.
            payload[:] = bytes(len(payload))

    def payload(self) -> bytes:
        """The JSON of `shared.delivery.messages.ResolveAnswer`, values included."""
        plan, subject, record = self.plan, self.subject, self.record
        said = {
            "record": {"stream": record.stream, "n": record.n, "hash": record.hash},
            "floor": {"policy": plan.floor.policy, "catalog": plan.floor.catalog},
            "subject": {"idp_id": subject.idp_id, "subject": subject.subject},
            "subject_expires_at": subject.expires_at,
            "context": {"profile_id": plan.profile.id, "name": plan.profile.name},
            "server_id": plan.server.id,
            "server": _signed(plan.server.evidence),
            "definition_digest": plan.server.digest,
            "fields": [_field(lease, value) for lease, value in zip(self.leases, self.values, strict=True)],
        }
        return orjson.dumps(said)


def _signed(evidence: Evidence) -> dict[str, str]:
    return {
        "type": evidence.type,
        "payload": to_base64url(evidence.payload),
        "signature": to_base64url(evidence.signature or b""),
        "key_id": evidence.key_id or "",
    }


def _field(lease: Lease, value: ReadValue | None) -> dict[str, Any]:
    granted = {
        "id": lease.id,
        "reference_id": lease.item.place.id,
        "version": IN_PLACE if value is None else value.version,
        "expires_at": lease.expires_at,
        "rests_on": lease.item.rests_on,
    }
    match lease.item.place:
        case InstanceVariable(variable=variable):
            return {"name": lease.item.field, "variable": variable.name, "lease": granted}
        case _ if value is not None:
            with value.secret.reveal() as view:
                return {"name": lease.item.field, "value": to_base64url(view), "lease": granted}
        case _:
            # A field without its value is no answer, and nothing may make one of it.
            raise KeyfobError
