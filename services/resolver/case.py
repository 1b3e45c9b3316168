"""One resolve as far as it has come: each step adds to it, and every record tells what is there."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from services.resolver.answers import Lease
from services.resolver.domain.decision import Item, Plan
from services.resolver.domain.facts import Idp, Instance
from services.resolver.domain.plans import StoredValue
from services.resolver.domain.snapshot import Floor, Snapshot
from services.resolver.domain.versions import superseded
from services.resolver.entries import Entry, RecordedItem
from services.resolver.sources.port import ReadValue
from shared.delivery import AssertionRefused, Request, VerifiedAssertion
from shared.delivery.certificates import PeerCertificate
from shared.delivery.messages import ResolveRequest
from shared.errors import KeyfobError
from shared.events.access import Phase
from shared.events.policy import DeliveryProfile
from shared.identity import Subject

Proved = VerifiedAssertion | PeerCertificate
"""What proved the instance; both know its id."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came: with an assertion, or over a connection whose peer proved a certificate.

    `traceparent` is the caller's W3C trace context.
    """

    request: Request
    proof: str | PeerCertificate
    traceparent: str | None = None

    @property
    def delivery(self) -> DeliveryProfile:
        """The door that it came to; whether the instance may use that one is another question."""
        return DeliveryProfile.SEALED if isinstance(self.proof, str) else DeliveryProfile.HTTPS

    @property
    def trace_id(self) -> str:
        """The trace's id, or nothing."""
        parts = (self.traceparent or "").split("-")
        return parts[1] if len(parts) == 4 and len(parts[1]) == 32 else ""  # noqa: PLR2004 - W3C Trace Context 3.2


class CaseRefused(Exception):
    """Ends a case: `reason` for the record, `error` for the caller."""

    def __init__(self, reason: str, error: KeyfobError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, both proved, and the two records that the proofs rest on."""

    proved: Proved
    subject: Subject
    instance: Instance | None
    idp: Idp | None

    def stands(self, snapshot: Snapshot) -> bool:
        """Whether the instance's keys and the issuer's entry are still those that the proofs were made with."""
        policy = snapshot.policy
        # By identity again: a record that was replaced with equal content is looked at anew.
        return (
            policy.instance(self.proved.instance_id) is self.instance
            and policy.idps.get(self.subject.idp_id) is self.idp
        )


@dataclass(slots=True)
class Case:
    """What is known of one resolve. Values in it are wiped by `wipe`, whatever came of it."""

    call: Call
    wish: ResolveRequest
    id: str = field(default_factory=lambda: f"resolution/{secrets.token_hex(16)}")
    proved: Proved | None = None
    unproved: AssertionRefused | None = None
    """Why the assertion did not count."""
    subject: Subject | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    plan: Plan | None = None
    leases: tuple[Lease, ...] = ()
    values: list[ReadValue | None] = field(default_factory=list)
    """One an item; None for what only the instance itself can read."""

    @property
    def instance_id(self) -> str | None:
        """Who asks; where the assertion did not count, who had signed it."""
        proof = self.proved or self.unproved
        return None if proof is None else proof.instance_id

    @property
    def asserted(self) -> str:
        """What records call the assertion that it came with: one that counts, or that was seen before."""
        proof = self.proved or self.unproved
        # What came with a certificate carries no assertion, so there is none for audit to find twice.
        return proof.digest if isinstance(proof, VerifiedAssertion | AssertionRefused) else ""

    @property
    def floor(self) -> Floor:
        """What the instance has seen already."""
        return Floor(self.wish.floor.policy, self.wish.floor.catalog)

    def grant(self, plan: Plan, leases: tuple[Lease, ...]) -> None:
        """This is what it comes to, as far as decided by now."""
        self.plan, self.leases = plan, leases

    def wipe(self) -> None:
        """Overwrite every value that was read."""
        wipe(self.values)

    def behind(self, items: Sequence[Item]) -> list[int]:
        """Which of the values are older than the catalog's present version of their reference."""
        return [index for index, item in enumerate(items) if _superseded(self.values[index], item)]

    def entry(self, phase: Phase, reason: str = "") -> Entry:
        """The record of this case in `phase`."""
        plan, subject, floor = self.plan, self.subject, self.snapshot.floor
        return Entry(
            phase=phase,
            resolution_id=self.id,
            instance_id=self.instance_id,
            instance_name=self._instance_name(),
            delivery=self.call.delivery,
            subject=(subject.idp_id, subject.subject) if subject else None,
            groups=(plan.group,) if plan else (),
            server_id=plan.server.id if plan else None,
            server_name=self.wish.server,
            profile_id=plan.profile.id if plan else None,
            context=plan.profile.name if plan else self.wish.context or "",
            items=tuple(self._items()),
            reason=reason,
            policy_seq=floor.policy,
            catalog_seq=floor.catalog,
            trace_id=self.call.trace_id,
            assertion=self.asserted,
            traceparent=self.call.traceparent,
        )

    def _items(self) -> Iterator[RecordedItem]:
        # Refused or not read yet: then there are leases without values, and the record says so by having no version.
        for lease, value in zip_longest(self.leases, self.values):
            yield lease.recorded(None if value is None else value.version)

    def _instance_name(self) -> str:
        if self.plan is not None:
            return self.plan.instance.name
        instance = self.snapshot.policy.instance(self.instance_id) if self.instance_id else None
        return instance.name if instance else ""


def wipe(values: Iterable[ReadValue | None]) -> None:
    """Overwrite those that are there."""
    for value in values:
        if value is not None:
            value.secret.wipe()


def _superseded(value: ReadValue | None, item: Item) -> bool:
    match item.place:
        case StoredValue(reference=reference) if value is not None:
            return superseded(value.version, reference.version)
        case _:
            return False
