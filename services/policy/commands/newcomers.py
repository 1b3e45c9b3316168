"""Who wants to be let in: by keys of its own, or by a certificate that the installation's authority gives it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from services.policy.instance_ca import InstanceCa, requested_key
from shared.crypto.framing import to_base64url
from shared.crypto.sealing import SealingPublicKey
from shared.crypto.signing import VerifyKey
from shared.delivery.certificates import certified_key, key_text
from shared.delivery.enrolment import verify_certificate
from shared.delivery.https_only import CertificateEnrolRequest
from shared.delivery.messages import EnrolRequest
from shared.errors import BadRequest, SignatureInvalid
from shared.events.policy import DeliveryProfile, InstanceRecord


class Newcomer(Protocol):
    """One that presents a token, and holds the private key of what it presents with it."""

    delivery: ClassVar[DeliveryProfile]

    @property
    def token(self) -> str:
        """What it was given to come in with."""
        ...

    @property
    def name(self) -> str:
        """What it believes to be called."""
        ...

    @property
    def key(self) -> str:
        """Its public key as text: no two instances have the same."""
        ...

    def is_same(self, known: InstanceRecord) -> bool:
        """Whether that instance is this one, come again since the answer got lost."""
        ...

    def proofs(self, *, instance_id: str, now: datetime) -> dict[str, str]:
        """What its record will say of how it proves itself."""
        ...


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """One of the profile `sealed`."""

    delivery: ClassVar[DeliveryProfile] = DeliveryProfile.SEALED
    request: EnrolRequest

    def prove(self) -> None:
        """Check that the sender holds the signing key and certified the sealing key; `BadRequest` if not."""
        request = self.request
        try:
            verify_certificate(
                request.sealing_key_signature,
                signing_key=VerifyKey.from_base64(request.signing_key),
                sealing_key=SealingPublicKey.from_base64(request.sealing_key),
            )
        except (SignatureInvalid, ValueError):
            raise BadRequest("The sealing key is not certified by the signing key.") from None

    @property
    def token(self) -> str:
        """See `Newcomer`."""
        return self.request.token.get_secret_value()

    @property
    def name(self) -> str:
        """See `Newcomer`."""
        return self.request.name

    @property
    def key(self) -> str:
        """See `Newcomer`."""
        return self.request.signing_key

    def is_same(self, known: InstanceRecord) -> bool:
        """See `Newcomer`."""
        # Both keys: an answer to others would have somebody believe that they are enrolled.
        return (known.signing_key, known.sealing_key) == (self.request.signing_key, self.request.sealing_key)

    def proofs(self, *, instance_id: str, now: datetime) -> dict[str, str]:
        """See `Newcomer`."""
        del instance_id, now
        return {
            "signing_key": self.request.signing_key,
            "sealing_key": self.request.sealing_key,
            "sealing_certificate": self.request.sealing_key_signature,
        }


@dataclass(frozen=True, slots=True)
class CertificateHolder:
    """One of the profile `https`, whose certificate `ca` makes once it is let in."""

    delivery: ClassVar[DeliveryProfile] = DeliveryProfile.HTTPS
    request: CertificateEnrolRequest
    public: CertificatePublicKeyTypes
    ca: InstanceCa = field(repr=False)

    @classmethod
    def proved(cls, request: CertificateEnrolRequest, ca: InstanceCa) -> CertificateHolder:
        """The sender of a request that is signed with its own key; `BadRequest` for any other."""
        return cls(request, requested_key(request.certificate_request), ca)

    @property
    def token(self) -> str:
        """See `Newcomer`."""
        return self.request.token.get_secret_value()

    @property
    def name(self) -> str:
        """See `Newcomer`."""
        return self.request.name

    @property
    def key(self) -> str:
        """See `Newcomer`."""
        return key_text(self.public)

    def is_same(self, known: InstanceRecord) -> bool:
        """See `Newcomer`."""
        return known.delivery is self.delivery and certified_key(known.certificate) == self.key

    def proofs(self, *, instance_id: str, now: datetime) -> dict[str, str]:
        """See `Newcomer`."""
        certificate = self.ca.issue(self.public, instance_id=instance_id, now=now)
        return {"certificate": to_base64url(certificate.public_bytes(Encoding.DER))}
