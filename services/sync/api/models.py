"""What goes in and out of sync's admin API."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.sync.domain.ports import CoverageView, ReferenceView, Run
from shared.events.catalog import KvSource, SourceRecord

Item = TypeVar("Item")


def storable(text: str) -> str:
    """Text that a database keeps; `ValueError` for what is none."""
    # PostgreSQL takes no NUL, and no encoding takes a lone surrogate: both would fail far from whoever sent them.
    if any(unicodedata.category(one) in {"Cc", "Cs"} for one in text):
        raise ValueError("control characters and lone surrogates are not text")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(storable)]
"""A name or an id that somebody typed."""

_CLOSED = ConfigDict(frozen=True, extra="forbid")
_ShortText = Annotated[str, StringConstraints(max_length=2000)]


class Page(BaseModel, Generic[Item]):
    """Some of many: pass `next` as `after` to get more; it is absent on the last page."""

    items: list[Item]
    next: str | None = None


class PlaceBody(BaseModel):
    """Where a source is."""

    model_config = _CLOSED

    provider: Annotated[str, StringConstraints(pattern=r"^kv2$")] = "kv2"
    origin: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    mount: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "secret"
    prefix: Annotated[str, StringConstraints(max_length=1000)] = ""


class SourceBody(BaseModel):
    """A source to connect."""

    model_config = _CLOSED

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    place: PlaceBody


class ReceiptBody(BaseModel):
    """What was committed. `event_id` is what to wait for at the notifier; empty when nobody needs to act."""

    entity_id: str
    seq: int
    event_id: str = ""


class SourceItem(BaseModel):
    """A connected source."""

    id: str
    name: str
    place: KvSource
    reachable: bool
    seq: int

    @classmethod
    def of(cls, record: SourceRecord) -> SourceItem:
        """As people see it."""
        return cls(id=record.id, name=record.name, place=record.place, reachable=record.reachable, seq=record.seq)


class ConnectedSource(SourceItem, ReceiptBody):
    """A source with the receipt of its connection."""


class ReferenceBody(BaseModel):
    """What to change of a reference; what is absent stays."""

    model_config = _CLOSED

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    owner: _ShortText | None = None
    description: _ShortText | None = None


class ReferenceItem(BaseModel):
    """A reference. Never a value."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    source: str
    source_id: str
    path: str
    key: str | None
    version: str
    state: str
    successor_id: str | None
    owner: str
    description: str
    changed_at: datetime
    seq: int

    @classmethod
    def of(cls, view: ReferenceView) -> ReferenceItem:
        """As people see it."""
        return cls.model_validate(view)


class EditedReference(ReferenceItem, ReceiptBody):
    """A reference with the receipt of its change."""


class SyncBody(BaseModel):
    """Which source to look at, by name or id; all of them without."""

    model_config = _CLOSED

    source: Text | None = None


class SyncPart(BaseModel):
    """One source's part of a sync."""

    model_config = ConfigDict(from_attributes=True)

    source: str
    state: str
    seen: int
    changed: int
    why: str


class SyncItem(BaseModel):
    """A manual sync: `running`, `done`, or `failed` when any source could not be finished."""

    id: str
    state: str
    seen: int
    changed: int
    asked_by: str
    asked_at: datetime
    ended_at: datetime | None
    sources: list[SyncPart]

    @classmethod
    def of(cls, run: Run) -> SyncItem:
        """As people see it."""
        return cls(
            id=run.id,
            state=run.state,
            seen=sum(part.seen for part in run.parts),
            changed=sum(part.changed for part in run.parts),
            asked_by=run.asked_by,
            asked_at=run.asked_at,
            ended_at=run.ended_at,
            sources=[SyncPart.model_validate(part) for part in run.parts],
        )


class CoverageItem(BaseModel):
    """How well one source is covered; durations in seconds."""

    model_config = ConfigDict(from_attributes=True)

    source: str
    source_id: str
    reachable: bool
    why: str
    references: int
    active: int
    pending_deletion: int
    unreadable: int
    gone: int
    surveyed_at: datetime | None
    survey_s: float
    seen: int
    denied_folders: int
    older: int
    keys_visible: bool | None
    feed_at: datetime | None
    feed_messages: int
    found_by_feed: int
    found_by_sweep: int
    found_by_manual: int

    @classmethod
    def of(cls, view: CoverageView) -> CoverageItem:
        """As people see it."""
        return cls.model_validate(view)


class CoverageList(BaseModel):
    """All sources."""

    items: list[CoverageItem] = Field(default_factory=list)
