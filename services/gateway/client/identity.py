"""Who this instance is: its two private keys, its id, and the keys that it pinned when it enrolled.

A directory that only its owner may enter holds `signing.pem`, `sealing.pem` (PKCS #8), `identity.json`, and a `lock`
that says which process acts under this identity.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
LOCK: Final = "lock"
LOOK_AGAIN_S: Final = 0.1


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


@asynccontextmanager
async def alone(directory: Path, *, within_s: float) -> AsyncIterator[None]:
    """Act under the identity in `directory` as the only process that does, until the block ends or the process dies.

    Waits up to `within_s` seconds for a predecessor that is leaving; `Misconfigured` when one stays. flock(2) does not
    reach a copy of the directory: two that act are noticed by their receipts then (`instance-duplicated`).
    """
    try:
        _make_directory(directory)
        # Closed on exec: a child that outlives a killed gateway must not hold the identity in its place.
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(f"{directory} can't be this gateway's identity: {error.strerror}.") from None
    try:
        if not await _locked(descriptor, within_s):
            raise Misconfigured(
                f"Another process acts under the identity in {directory}: stop it, or enrol this gateway for itself."
            )
        yield
    finally:
        os.close(descriptor)


async def _locked(descriptor: int, within_s: float) -> bool:
    loop = asyncio.get_running_loop()
    waits_until = loop.time() + within_s
    # By looking again: a blocking flock(2) would need a thread that nothing can cancel.
    while not _lock(descriptor):
        if loop.time() >= waits_until:
            return False
        await asyncio.sleep(LOOK_AGAIN_S)
    return True


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def make_keys(directory: Path) -> Keys:
    """New keys, durable before anybody hears of them; those of an enrolment that did not finish are used again."""
    _make_directory(directory)
    signing, sealing = directory / SIGNING, directory / SEALING
    # Never made anew: policy may have taken these in an enrolment whose answer was lost.
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
