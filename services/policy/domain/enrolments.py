"""Enrolment: a token that is shown once and works once, and the instance that it lets in.

Kept is only the token's SHA-256. 256 random bits need no slow hash: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from shared.events.contract import Id, Instant, Name
from shared.events.policy import DeliveryProfile, InstanceRecord

TOKEN_PREFIX: Final = "kfe_"  # noqa: S105 - lets secret scanners find a token that leaked, and is none itself
LONGEST_TOKEN: Final = 256


class EnrolmentRecord(BaseModel):
    """What an administrator promised: signed as kept, so that a row slipped into the database promises nothing."""

    model_config = ConfigDict(frozen=True)

    id: Id
    name: Name
    delivery: DeliveryProfile = DeliveryProfile.SEALED
    """Absent in those of before there were two."""
    token_sha256: str
    labels: dict[str, str] = Field(default_factory=dict)
    allowed_servers: tuple[str, ...] = ()
    created_at: Instant
    expires_at: Instant


class EnrolmentState(StrEnum):
    """What became of it."""

    OPEN = "open"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A promise and whether it was kept. `seq` and `event_id` are of the commit that made it."""

    record: EnrolmentRecord
    instance_id: str | None
    seq: int
    event_id: str

    def state(self, now: datetime) -> EnrolmentState:
        """Used, expired or open."""
        if self.instance_id is not None:
            return EnrolmentState.USED
        return EnrolmentState.OPEN if now < self.record.expires_at else EnrolmentState.EXPIRED


@dataclass(frozen=True, slots=True)
class Admit:
    """The token is good: make the instance that was promised."""

    enrolment: Enrolment


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same instance asks again, since the answer got lost: give it the same answer."""

    instance: InstanceRecord


@dataclass(frozen=True, slots=True)
class Refuse:
    """Used by another, expired or unknown; the caller is told only that it isn't valid."""


Verdict = Admit | Repeat | Refuse


def judge(enrolment: Enrolment | None, used_by: InstanceRecord | None, *, same: bool, now: datetime) -> Verdict:
    """What a presented token is worth. `used_by` is the living instance that it let in, if any.

    `same`: whether whoever presents it is that instance.
    """
    # Expiry comes first, also for a repeat: a token that leaked is worth nothing from then on, to anybody.
    if enrolment is None or now >= enrolment.record.expires_at:
        return Refuse()
    if enrolment.instance_id is None:
        return Admit(enrolment)
    if used_by is not None and same:
        return Repeat(used_by)
    return Refuse()


def new_token() -> str:
    """256 random bits as text."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """What is kept of a token, in hex."""
    # Text that is no UTF-8 is an unknown token like any other, and no failure of ours.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
