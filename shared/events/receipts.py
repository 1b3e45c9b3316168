"""The `receipts` topic: how far instances and resolvers have come. A gateway signs its own."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from shared import topics
from shared.events.contract import LARGEST, Contract, Count, Id, Instant, Ordinal, Seq
from shared.events.policy import VariableName

Offset = Annotated[int, Field(ge=-1, le=LARGEST)]
"""An offset in `notices`; -1 before the first."""

MOST_TOLD: Final = 1000
"""Entries of one kind in one receipt; what does not fit goes into the next."""


class LeaseEnd(StrEnum):
    """Why an instance no longer holds a value."""

    NOTICE = "notice"
    EXPIRED = "expired"
    SESSION = "session"
    FENCED = "fenced"
    REPLACED = "replaced"


class EndedLease(BaseModel):
    """A lease that is over: the process or connection that held the value is gone."""

    model_config = ConfigDict(frozen=True)

    lease_id: Id
    why: LeaseEnd
    at: Instant


class FindingKind(StrEnum):
    """What a gateway found where a value should not have been."""

    REDACTED = "redacted"
    """The server said its value; the places were replaced."""
    GUESSED = "guessed"
    """A caller supplied the value as an argument: perhaps somebody tries whether it is the right one."""


class Finding(BaseModel):
    """A value that showed in what a server, or its caller, said. Never the value, and never what stood around it."""

    model_config = ConfigDict(frozen=True)

    id: Id
    """Told again under the same id until a receipt is durable."""
    kind: FindingKind
    lease_id: Id
    """Under which the server had the value: whose and for what stands in the record that opened it."""
    places: Ordinal
    at: Instant


class GatewayReceipt(Contract):
    """Cumulative: everything up to `applied_offset` is fenced, what rested on it up to `dropped_offset` is gone.

    Signed by the instance (CloudEvents extension `signature`) over domain `keyfob/receipt/v1` and the payload.
    """

    TYPE: ClassVar[str] = "keyfob.receipt.gateway.v1"
    TOPIC: ClassVar[str] = topics.RECEIPTS

    instance_id: Id
    run: Id
    """One per start of the instance."""
    n: Count
    applied_offset: Offset
    dropped_offset: Offset
    open_leases: Count
    ended: Annotated[tuple[EndedLease, ...], Field(max_length=MOST_TOLD)] = ()
    released: Annotated[tuple[str, ...], Field(max_length=MOST_TOLD)] = ()
    """`stream/n/hash` of authorisations received since the last receipt: the record's echo."""
    findings: Annotated[tuple[Finding, ...], Field(max_length=MOST_TOLD)] = ()
    """Since the last receipt; absent in those of before there was redaction."""
    variables: tuple[VariableName, ...] = ()
    """Which environment variables the instance was started with, of those that its own settings allow: names only."""
    at: Instant


class ResolverReceipt(Contract):
    """How far a resolver replica has applied state, and whether it can prove that this is current."""

    TYPE: ClassVar[str] = "keyfob.receipt.resolver.v1"
    TOPIC: ClassVar[str] = topics.RECEIPTS

    replica_id: Id
    run: Id
    policy_seq: Seq
    catalog_seq: Seq
    fresh: bool
    stopping: bool = False
    """The replica said goodbye: it answers nothing any more."""
    at: Instant
