"""The `vault-changes` and `policy-changes` topics: what happened, for whoever acts on it or keeps a record."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from shared import topics
from shared.events.catalog import ReferenceState
from shared.events.contract import Contract, Id, Instant, Name, Seq


class Detection(StrEnum):
    """How sync came to look."""

    FEED = "feed"
    SWEEP = "sweep"
    MANUAL = "manual"


class VaultChangeKind(StrEnum):
    """What sync saw happen to a reference."""

    DISCOVERED = "discovered"
    ROTATED = "rotated"
    STATE_CHANGED = "state-changed"


class VaultChange(Contract):
    """A reference changed in its source. `seq` is the commit of the catalog record that came with it."""

    TYPE: ClassVar[str] = "keyfob.vault.reference-changed.v1"
    TOPIC: ClassVar[str] = topics.VAULT_CHANGES

    id: Id
    seq: Seq
    kind: VaultChangeKind
    reference_id: Id
    reference_name: Name
    source_id: Id
    version: str
    previous_version: str | None = None
    state: ReferenceState
    previous_state: ReferenceState | None = None
    detected_by: Detection
    changed_at: Instant
    """By the provider's clock."""
    detected_at: Instant


class Actor(BaseModel):
    """Who did something: a person or agent of an identity provider, or Keyfob itself (`idp` = `keyfob`)."""

    model_config = ConfigDict(frozen=True)

    idp: str
    subject: Name


class PolicyAction(StrEnum):
    """What a call of an administrator's, the clock, or an enrolment did."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    STARTED = "started"
    """A timed grant's window opened."""
    ENDED = "ended"
    """A timed grant's window closed."""
    REFUSED = "refused"
    """Somebody came with an enrolment's token and was not let in: nothing changed."""


class PolicyChange(Contract):
    """One commit of policy. Leases that rest on an id in `ended` end."""

    TYPE: ClassVar[str] = "keyfob.policy.changed.v1"
    TOPIC: ClassVar[str] = topics.POLICY_CHANGES

    id: Id
    seq: Seq
    action: PolicyAction
    entity_kind: Name
    """`grant`, `server`, `instance`, …"""
    entity_id: Id
    entity_name: str = ""
    ended: tuple[Id, ...] = ()
    actor: Actor
    at: Instant
