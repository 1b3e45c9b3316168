"""The `catalog` topic: sources and references as sync knows them. Never a value, never a credential."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from shared import topics
from shared.events.contract import Id, Instant, Name, StateRecord


class ReferenceState(StrEnum):
    """What sync last learned of a reference. Unreachable is never taken for removed."""

    ACTIVE = "active"
    PENDING_DELETION = "pending-deletion"
    DISABLED = "disabled"
    REMOVED = "removed"
    RENAMED = "renamed"
    UNREADABLE = "unreadable"
    SOURCE_UNREACHABLE = "source-unreachable"

    @property
    def readable(self) -> bool:
        """Whether a resolver may try to read it. An unreachable source is tried: it may answer the resolver."""
        return self in {ReferenceState.ACTIVE, ReferenceState.SOURCE_UNREACHABLE}


class KvSource(BaseModel):
    """A KV version 2 mount of Vault or OpenBao. `prefix` limits it to paths below; empty means the mount."""

    model_config = ConfigDict(frozen=True)

    provider: Literal["kv2"] = "kv2"
    origin: str
    """Scheme, host and port. A credential is bound to the origin it was entered for."""
    mount: str = "secret"
    prefix: str = ""


class SourceRecord(StateRecord):
    """A configured connection to a place that holds secrets."""

    TYPE: ClassVar[str] = "keyfob.catalog.source.v1"
    TOPIC: ClassVar[str] = topics.CATALOG

    name: Name
    place: KvSource
    reachable: bool = True


class ReferenceRecord(StateRecord):
    """A named pointer to one value in one source.

    `version` is the provider's own, as text. `key` names one entry of a secret that holds several; None where
    sync may not see the keys: the secret must then hold exactly one.
    """

    TYPE: ClassVar[str] = "keyfob.catalog.reference.v1"
    TOPIC: ClassVar[str] = topics.CATALOG

    name: Name
    source_id: Id
    path: str
    key: str | None = None
    version: str
    state: ReferenceState = ReferenceState.ACTIVE
    successor_id: Id | None = None
    owner: str = ""
    description: str = ""
    changed_at: Instant
    """When the provider says that this version came to be."""
