"""The `custody-changes` topic: what happened to values that Keyfob keeps itself, and to the keys they are sealed under.

Never a value, and nothing from which one could be told: names, versions and key ids, for whoever ends leases and
whoever keeps a record.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from shared import topics
from shared.events.changes import Actor
from shared.events.contract import Contract, Count, Id, Instant, Name, Ordinal, Seq
from shared.events.policy import LocalOwner

KeyId = Annotated[str, Field(pattern=r"^[a-z2-7]{16}$")]
"""The id of an installation key or of a recovery key, as its text spells it."""


class KeyAction(StrEnum):
    """What happened to an installation key."""

    MADE_CURRENT = "made-current"
    """It seals what is new from now on; what older keys sealed is being brought to it."""
    REWRAPPED = "rewrapped"
    """Everything that could be brought to it was."""
    RETIRED = "retired"
    """Nothing here needs it any more."""
    RECOVERED = "recovered"
    """It was restored from its recovery blob."""


class KeyChange(Contract):
    """One act on an installation key. `seq` is the commit of the service that keeps values."""

    TYPE: ClassVar[str] = "keyfob.custody.key-changed.v1"
    TOPIC: ClassVar[str] = topics.CUSTODY_CHANGES

    id: Id
    seq: Seq
    action: KeyAction
    key_id: KeyId
    previous_key_id: KeyId | None = None
    """The one that was current before."""
    recovery_key_id: KeyId | None = None
    """Whose other half restores it; absent where nothing does."""
    values: Count = 0
    """Values that the act was about."""
    damaged: Count = 0
    """Values that did not open and were left as they are."""
    actor: Actor
    at: Instant


class ValueAction(StrEnum):
    """What happened to a local value."""

    SET = "set"
    REPLACED = "replaced"
    DELETED = "deleted"


class ValueChange(Contract):
    """One act on a local value. Leases on `value_id` of a version below `version` end."""

    TYPE: ClassVar[str] = "keyfob.custody.value-changed.v1"
    TOPIC: ClassVar[str] = topics.CUSTODY_CHANGES

    id: Id
    seq: Seq
    action: ValueAction
    value_id: Id
    version: Ordinal
    """Of what is there after the act; a deletion raises it too."""
    owner_kind: LocalOwner
    owner: Name
    """The subject as its identity provider names it, or the profile's id."""
    owner_idp: Id | None = None
    """Of a subject."""
    server_id: Id
    server_name: Name
    field: Name
    actor: Actor
    at: Instant
