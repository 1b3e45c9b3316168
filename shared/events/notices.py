"""The `notices` topic: what gateways must act on. Ids only: whoever reads it learns no name of anything."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from shared import topics
from shared.events.contract import Contract, Id, Instant, Seq


class NoticeKind(StrEnum):
    """Why leases end: a rotation lets running calls drain; a revocation ends them at once."""

    ROTATION = "rotation"
    REVOCATION = "revocation"


class Superseded(BaseModel):
    """Leases of this reference with another version than `current` end; with None all of them do."""

    model_config = ConfigDict(frozen=True)

    reference_id: Id
    current: str | None = None


class Notice(Contract):
    """These records ended, or these versions were superseded. `id` is UUIDv5 of the causing event.

    Exactly one of `policy_seq`, `catalog_seq` and `custody_seq` is set: the commit that caused it. A lease that was
    decided at or after a commit of the first two already knew, and does not end; local values are told by version.
    """

    TYPE: ClassVar[str] = "keyfob.notice.v1"
    TOPIC: ClassVar[str] = topics.NOTICES

    id: Id
    kind: NoticeKind
    cause_id: Id
    ended: tuple[Id, ...] = ()
    superseded: tuple[Superseded, ...] = ()
    policy_seq: Seq | None = None
    catalog_seq: Seq | None = None
    custody_seq: Seq | None = None
    at: Instant


class NoticeTick(Contract):
    """Policy's signed tick, passed on unchanged: payload and signature as they stood in `policy`.

    A gateway that has seen none issued within its bound (60 s) drops everything by itself.
    """

    TYPE: ClassVar[str] = "keyfob.notice.tick.v1"
    TOPIC: ClassVar[str] = topics.NOTICES

    payload: bytes
    signature: bytes
    key_id: str
