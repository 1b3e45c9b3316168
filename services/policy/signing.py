"""The policy key: signs what policy accepts, and recognises it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.bus.signatures import record_signer, record_verifies
from shared.crypto.signing import SigningKey
from shared.errors import SignatureInvalid
from shared.events.policy import PolicyRecord

ENROLMENT_DOMAIN: Final = b"keyfob/enrolment/1"


@dataclass(frozen=True, slots=True)
class PolicyKey:
    """The one key of this service. It is neither in the database nor on the broker."""

    key: SigningKey

    @property
    def public(self) -> str:
        """What verifiers pin, base64url."""
        return self.key.verify_key.to_base64()

    def sign(self, *, topic: str, type_: str, key: str, payload: bytes) -> tuple[str, bytes]:
        """A `shared.bus.signatures.RecordSigner`: the key's id and the signature."""
        return record_signer(self.key)(topic=topic, type_=type_, key=key, payload=payload)

    def signed(self, model: type[PolicyRecord], *, key: str, payload: bytes, signature: bytes) -> bool:
        """Whether this key signed a record of that type for that id."""
        return record_verifies(
            self.key.verify_key, signature, topic=model.TOPIC, type_=model.TYPE, key=key, payload=payload
        )

    def promise(self, payload: bytes) -> bytes:
        """Sign an enrolment, which stays in the database."""
        # A domain of its own: a promise can't be passed off as a record of the topic, nor the reverse.
        return self.key.sign(ENROLMENT_DOMAIN, payload)

    def promised(self, payload: bytes, *, signature: bytes) -> bool:
        """Whether this key signed that enrolment."""
        try:
            self.key.verify_key.verify(signature, ENROLMENT_DOMAIN, payload)
        except SignatureInvalid:
            return False
        return True
