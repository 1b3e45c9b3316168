"""Who this instance is: its two private keys, its id, and the keys that it pinned when it enrolled.

A directory that only its owner may enter holds `signing.pem`, `sealing.pem` (PKCS #8) and `identity.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from shared.config import Misconfigured, read_secret_file
from shared.crypto.key_files import KeyFileRefused, write_key_file
from shared.crypto.sealing import SealingKey
from shared.crypto.signing import SigningKey, VerifyKey
from shared.delivery.messages import EnrolAnswer

SIGNING: Final = "signing.pem"
SEALING: Final = "sealing.pem"
ANSWER: Final = "identity.json"


@dataclass(frozen=True, slots=True)
class Keys:
    """Made on the spot, never sent anywhere."""

    signing: SigningKey
    sealing: SealingKey


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled instance."""

    keys: Keys
    enrolled: EnrolAnswer

    @property
    def instance_id(self) -> str:
        """What policy calls this instance."""
        return self.enrolled.instance_id

    @property
    def policy_key(self) -> VerifyKey:
        """Signs the records of policy: definitions and ticks."""
        return VerifyKey.from_base64(self.enrolled.policy_key)

    @property
    def resolver_keys(self) -> tuple[VerifyKey, ...]:
        """Sign resolvers' answers."""
        return tuple(VerifyKey.from_base64(text) for text in self.enrolled.resolver_keys)


def make_keys(directory: Path) -> Keys:
    """New keys, durable before anybody hears of them; those of an enrolment that did not finish are used again."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    signing, sealing = directory / SIGNING, directory / SEALING
    if not signing.exists():
        SigningKey.generate().save(signing)
    if not sealing.exists():
        SealingKey.generate().save(sealing)
    return _load_keys(directory)


def save_answer(directory: Path, answer: EnrolAnswer) -> None:
    """Write what policy answered, whole or not at all, mode 0600: from then on the directory is an identity."""
    write_key_file(directory / ANSWER, answer.model_dump_json().encode())


def load_identity(directory: Path) -> Identity | None:
    """The identity in `directory`, or None where nobody has enrolled yet. `Misconfigured` for a damaged one."""
    path = directory / ANSWER
    if not path.exists():
        return None
    try:
        enrolled = EnrolAnswer.model_validate_json(read_secret_file(path))
        identity = Identity(_load_keys(directory), enrolled)
        # Keys that can't be read should show now, not at the first answer.
        _ = identity.policy_key, identity.resolver_keys
    except (ValidationError, ValueError):
        raise Misconfigured(f"{path} is damaged: enrol this instance anew.") from None
    return identity


def _load_keys(directory: Path) -> Keys:
    try:
        return Keys(SigningKey.load(directory / SIGNING), SealingKey.load(directory / SEALING))
    except KeyFileRefused as error:
        raise Misconfigured(error.detail) from None
