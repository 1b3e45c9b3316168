"""The `access` topic: who was given what, or refused it. A release has two records; so does nothing else.

Each producer numbers its records without gaps (`stream`, `n`) and chains them: `prev` is the SHA-256, in hex, of
the payload bytes of record `n - 1` of the same stream (64 zeros for the first), exactly as they are on the wire.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from shared import topics
from shared.events.contract import Contract, Count, Id, Instant, Name, Seq
from shared.events.policy import DeliveryProfile

FIRST_PREV = "0" * 64


class Phase(StrEnum):
    """Which part of an access a record tells. A missing outcome is presumed delivered."""

    AUTHORISED = "authorised"
    RELEASED = "released"
    ABANDONED = "abandoned"
    REFUSED = "refused"


class AccessItem(BaseModel):
    """One field of one resolve. `version` is known once the value was read."""

    model_config = ConfigDict(frozen=True)

    field: Name
    reference_id: Id
    reference_name: Name
    source_id: Id
    version: str | None = None
    lease_id: Id
    expires_at: Instant
    rests_on: tuple[Id, ...]


class AccessSubject(BaseModel):
    """For whom: as the identity provider named it. `groups` are only those that the decision used."""

    model_config = ConfigDict(frozen=True)

    idp_id: Id
    subject: Name
    groups: tuple[str, ...] = ()


class AccessRecord(Contract):
    """One numbered record of one resolver replica's run. PCI DSS 10.2.2 and NIST AU-3 name what must be in it."""

    TYPE: ClassVar[str] = "keyfob.access.recorded.v1"
    TOPIC: ClassVar[str] = topics.ACCESS

    id: Id
    stream: Id
    n: Count
    prev: str
    phase: Phase
    at: Instant
    resolution_id: Id
    """Joins an outcome to its authorisation."""
    instance_id: Id | None = None
    instance_name: str = ""
    delivery: DeliveryProfile = DeliveryProfile.SEALED
    """The profile of the instance's door: sealed answers, or TLS alone."""
    subject: AccessSubject | None = None
    server_id: Id | None = None
    server_name: str = ""
    profile_id: Id | None = None
    context: str = ""
    items: tuple[AccessItem, ...] = ()
    reason: str = ""
    """Stable words for a refusal or an abandonment; empty for a release."""
    policy_seq: Seq
    catalog_seq: Seq
    trace_id: str = ""
    assertion: str = ""
    """Names the assertion that the request came with, once its signature held (`assertion_digest`)."""
    unrecorded: Count = 0
    """So many refusals like this one, by whoever proved as little, came besides and have no record of their own."""
