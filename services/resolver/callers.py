"""Who is calling: the instance by its assertion, the subject by its token, both as the newest picture knows them."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from services.resolver.case import Proved
from services.resolver.domain.facts import Evidence, Idp, Instance
from services.resolver.domain.policy_state import PolicyState
from services.resolver.trust import Trust
from shared.crypto.sealing import SealingPublicKey
from shared.crypto.signing import VerifyKey
from shared.delivery import ReplayWindow, Request, VerifiedAssertion, verify_assertion, verify_certificate
from shared.delivery.certificates import PeerCertificate, thumbprint_of
from shared.errors import AssertionInvalid, SignatureInvalid
from shared.events.policy import DeliveryProfile
from shared.identity import Subject, TokenVerifier, TrustedIssuer

_log = structlog.get_logger(__name__)


class CertificateRefusal(StrEnum):
    """Why a certificate was refused that the authority signed: safe to log and to count."""

    UNKNOWN_INSTANCE = "unknown-instance"
    INACTIVE = "not-active-in-this-profile"
    ANOTHER = "another-certificate"


class CertificateRefused(AssertionInvalid):
    """`AssertionInvalid` with its reason for records; what the caller is told is always the same."""

    title = "The client certificate is not that of an instance that may act here"

    def __init__(self, reason: CertificateRefusal) -> None:
        """Keep the reason; the detail stays the constant one."""
        super().__init__()
        self.reason = reason


@dataclass(frozen=True, slots=True)
class InstanceKeys:
    """The keys of one instance's record, checked: the sealing key is certified by the signing key."""

    evidence: Evidence
    verify: VerifyKey
    seal: SealingPublicKey


@dataclass(slots=True)
class Instances:
    """The keys of instances that may act now."""

    trust: Trust
    clock: Callable[[], float] = time.time
    seen: ReplayWindow = field(default_factory=ReplayWindow)
    _keys: dict[str, InstanceKeys] = field(default_factory=dict)

    def verify(self, proof: str | PeerCertificate, request: Request, policy: PolicyState) -> Proved:
        """The proof, verified; `AssertionInvalid` for unknown, banned and untrusted instances among others."""
        if isinstance(proof, PeerCertificate):
            self.admit(proof, policy)
            return proof
        return self._asserted(proof, request, policy)

    def _asserted(self, assertion: str, request: Request, policy: PolicyState) -> VerifiedAssertion:
        def key_of(instance_id: str) -> VerifyKey | None:
            instance = policy.instance(instance_id)
            keys = None if instance is None else self.keys(instance)
            return None if keys is None else keys.verify

        return verify_assertion(assertion, request, key_of=key_of, seen=self.seen, now=self.clock())

    def keys(self, instance: Instance) -> InstanceKeys | None:
        """The instance's keys; None while it is banned, untrusted, without any, or its sealing key isn't its own."""
        kept = self._keys.get(instance.id)
        # By identity: another record of the same instance, with other keys, is another object.
        if kept is not None and kept.evidence is instance.evidence:
            return kept if instance.active else None
        if not self._may_act(instance, DeliveryProfile.SEALED):
            return None
        try:
            keys = _checked(instance)
        # Policy signed it, so this is an error of ours and no attack; it still may not act.
        except (ValueError, SignatureInvalid):
            _log.error("instance keys unusable", instance=instance.id)
            return None
        self._keys[instance.id] = keys
        return keys

    def admit(self, peer: PeerCertificate, policy: PolicyState) -> Instance:
        """The instance whose certificate a peer proved; `CertificateRefused` for any other peer.

        1. Find the instance that the certificate names.
        2. It is active, of the profile `https`, and policy signed its record.
        3. The certificate is the one in its record, and not another that the authority signed.
        """
        # 1.
        instance = policy.instance(peer.instance_id)
        if instance is None:
            raise CertificateRefused(CertificateRefusal.UNKNOWN_INSTANCE)
        # 2.
        if not self._may_act(instance, DeliveryProfile.HTTPS):
            raise CertificateRefused(CertificateRefusal.INACTIVE)
        # 3.
        # So whoever stole the authority's key gets through the handshake and no further.
        if not hmac.compare_digest(thumbprint_of(instance.certificate), peer.thumbprint):
            raise CertificateRefused(CertificateRefusal.ANOTHER)
        return instance

    def _may_act(self, instance: Instance, delivery: DeliveryProfile) -> bool:
        # By its own door only: the profile that the admin fixed is part of who an instance is.
        return instance.active and instance.delivery is delivery and self.trust(instance.evidence)


def _checked(instance: Instance) -> InstanceKeys:
    verify, seal = VerifyKey.from_base64(instance.signing_key), SealingPublicKey.from_base64(instance.sealing_key)
    # Policy's signature is not enough: a sealing key that the instance did not certify may be anybody's.
    verify_certificate(instance.sealing_certificate, signing_key=verify, sealing_key=seal)
    return InstanceKeys(instance.evidence, verify, seal)


@dataclass(slots=True)
class Subjects:
    """Verifies subjects' tokens against exactly the identity providers that policy signed."""

    verifier: TokenVerifier
    trust: Trust
    _idps: object = None

    async def verify(self, token: str, policy: PolicyState) -> Subject:
        """Whom the token speaks for; `TokenInvalid`, or `Unavailable` when the issuer's keys can't be had."""
        self.follow(policy)
        return await self.verifier.verify(token)

    def follow(self, policy: PolicyState) -> None:
        """Trust the issuers of this state; costs nothing while they are the same."""
        # The map is persistent: the same object means that no provider has changed.
        if policy.idps is self._idps:
            return
        self._idps = policy.idps
        trusted = [idp for idp in policy.idps.values() if self.trust(idp.evidence)]
        # Alone among the trusted: an entry that somebody planted for the same issuer displaces nobody.
        self.verifier.replace_issuers(_issuer(idp) for idp in trusted if _alone(idp, trusted))


def _alone(idp: Idp, others: list[Idp]) -> bool:
    """Whether no other entry names this issuer: of two, nothing says whose a token is, so neither counts."""
    alone = sum(other.issuer == idp.issuer for other in others) == 1
    if not alone:
        _log.error("two identity providers name one issuer", idp=idp.id)
    return alone


def _issuer(idp: Idp) -> TrustedIssuer:
    return TrustedIssuer(
        idp_id=idp.id,
        issuer=idp.issuer,
        jwks_uri=idp.jwks_uri,
        audience=idp.audience,
        subject_claim=idp.subject_claim,
        groups_claim=idp.groups_claim,
    )
