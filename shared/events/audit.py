"""The `audit` topic: numbered records for operations teams and SIEMs. One flat shape for everything that happened."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from shared import topics
from shared.events.contract import Contract, Count, Id, Instant, Ordinal, Seq


class AuditAction(StrEnum):
    """`source:subject:action`."""

    ACCESS_AUTHORISED = "resolver:reference:authorise"
    ACCESS_RELEASED = "resolver:reference:release"
    ACCESS_ABANDONED = "resolver:reference:abandon"
    ACCESS_REFUSED = "resolver:reference:refuse"
    REFERENCE_CHANGED = "sync:reference:change"
    POLICY_CHANGED = "policy:entity:change"
    LEASE_ENDED = "gateway:lease:end"
    VALUE_REDACTED = "gateway:value:redact"
    VALUE_GUESSED = "gateway:value:guess"
    KEY_CHANGED = "resolver:key:change"
    VALUE_CHANGED = "resolver:value:change"
    ALERT_RAISED = "notifier:alert:raise"


class AuditReference(BaseModel):
    """A reference that a record is about."""

    model_config = ConfigDict(frozen=True)

    id: Id
    name: str
    field: str = ""
    version: str = ""


class AuditRecord(Contract):
    """One record of one log; `n` is dense from 1. `cause` is (topic, id) of the event it was made from."""

    TYPE: ClassVar[str] = "keyfob.audit.record.v1"
    TOPIC: ClassVar[str] = topics.AUDIT

    log: Id
    n: Ordinal
    at: Instant
    action: AuditAction
    decision: str = ""
    reason: str = ""
    actor: str = ""
    """Subject or admin, as its identity provider names it."""
    actor_idp: str = ""
    instance_id: str = ""
    instance_name: str = ""
    server_id: str = ""
    server_name: str = ""
    context: str = ""
    references: tuple[AuditReference, ...] = ()
    entity_id: str = ""
    detail: str = ""
    policy_seq: Seq | None = None
    catalog_seq: Seq | None = None
    trace_id: str = ""
    cause_topic: str
    cause_id: Id
    cause_stream: str = ""
    cause_n: Count | None = None
