"""Records are kept as they were signed, and read back only if they still verify.

Whoever can write to the database could otherwise let sync sign a reference that points somewhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from shared.bus.signatures import RecordSigner, record_signer, record_verifies
from shared.crypto.signing import SigningKey
from shared.errors import SignatureInvalid
from shared.events.contract import StateRecord

R = TypeVar("R", bound=StateRecord)


@dataclass(frozen=True, slots=True)
class Signed:
    """One record's payload with its signature."""

    payload: bytes
    key_id: str
    signature: bytes

    def signer(self) -> RecordSigner:
        """For `Commit.state`: gives the signature that was already made, over the same bytes."""

        def give(*, topic: str, type_: str, key: str, payload: bytes) -> tuple[str, bytes]:
            # One signature for the row and the topic: if the two differed, one would be a record that nobody signed.
            if payload != self.payload:
                raise ValueError(f"{topic} {type_} {key} is not what was signed")
            return self.key_id, self.signature

        return give


class Seal:
    """Signs what sync says, and recognises it."""

    __slots__ = ("_sign", "_verify_key")

    def __init__(self, key: SigningKey) -> None:
        """Sign and verify with the catalog's key."""
        self._sign = record_signer(key)
        self._verify_key = key.verify_key

    def sign(self, record: StateRecord) -> Signed:
        """The record's wire form, signed."""
        payload = record.to_json()
        key_id, signature = self._sign(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        return Signed(payload, key_id, signature)

    def open(self, model: type[R], record_id: str, payload: bytes, signature: bytes) -> R:
        """The record that was signed; `SignatureInvalid` for a row that somebody else wrote."""
        if not record_verifies(
            self._verify_key, signature, topic=model.TOPIC, type_=model.TYPE, key=record_id, payload=payload
        ):
            raise SignatureInvalid(f"{record_id} in the database was not written by sync.")
        return model.model_validate_json(payload)
