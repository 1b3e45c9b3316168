"""References as sync published them: a projection of `catalog`, by id and by name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from aiokafka.errors import KafkaError
from rpds import HashTrieMap

from shared import topics
from shared.bus.connection import KafkaSettings
from shared.bus.whole_topic import WholeTopicReader
from shared.errors import KeyfobError, Unavailable
from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.events.registry import CATALOG_RECORDS, by_type
from shared.projection.changes import Change, Removed, Upserted
from shared.projection.projection import Projection
from shared.projection.records import Authority, TypedRecord

KNOWN: Final = by_type(CATALOG_RECORDS)
RELAY_LAG_S: Final = 0.5
"""How long something that sync has just committed may take to its topic."""
CATCH_UP_WITHIN_S: Final = 2.0
_POLL_S: Final = 0.02

_GONE: Final = frozenset({ReferenceState.REMOVED, ReferenceState.RENAMED})


@dataclass(frozen=True, slots=True)
class References:
    """A snapshot. A name belongs to at most one living reference: sync sees to that."""

    by_id: HashTrieMap[str, TypedRecord] = field(default_factory=HashTrieMap)
    ids: HashTrieMap[str, str] = field(default_factory=HashTrieMap)
    """Name → id."""


def apply(references: References, change: Change) -> References:
    """The snapshot after one change."""
    match change:
        case Upserted(typed) if isinstance(typed.record, ReferenceRecord):
            kept = _without_name(references, typed.key)
            by_id, ids = kept.by_id.insert(typed.key, typed), kept.ids
            # What is gone keeps its id, so that old grants are still shown by name, and frees its name for a successor.
            if typed.record.state not in _GONE:
                ids = ids.insert(typed.record.name, typed.key)
            return References(by_id, ids)
        case Removed(key):
            kept = _without_name(references, key)
            return replace(kept, by_id=kept.by_id.discard(key))
        case _:
            return references


def _without_name(references: References, key: str) -> References:
    held = references.by_id.get(key)
    # A name that a successor has by now is the successor's, and stays.
    if held is None or not isinstance(held.record, ReferenceRecord) or references.ids.get(held.record.name) != key:
        return references
    return replace(references, ids=references.ids.discard(held.record.name))


class CatalogReferences:
    """`domain.ports.Catalog` on a projection. `run` it as a task; `reason` is for readiness."""

    def __init__(self, kafka: KafkaSettings, *, authority: Authority) -> None:
        self._reader = WholeTopicReader(kafka, topics.CATALOG)
        self._projection = Projection(self._reader, known=KNOWN, empty=References(), apply=apply)
        self._authority = authority

    async def run(self) -> None:
        """Follow the topic for ever."""
        await self._projection.run()

    @property
    def reason(self) -> str | None:
        """Why names can't be looked up, if so."""
        return self._projection.reason

    def by_id(self, reference_id: str) -> ReferenceRecord | None:
        """The living reference, as far as is known now."""
        return self._living(self._projection.snapshot.by_id.get(reference_id))

    def name_of(self, reference_id: str) -> str:
        """What a reference is or was called, gone ones included; empty if that isn't known."""
        typed = self._projection.snapshot.by_id.get(reference_id)
        if typed is None or not isinstance(typed.record, ReferenceRecord) or not self._authority.verified(typed):
            return ""
        return typed.record.name

    async def find(self, text: str) -> ReferenceRecord | None:
        """The living reference by name or id; what sync has committed before this call is known.

        `Unavailable` while that can't be shown.
        """
        # No question to the broker for what is known: administrators script hundreds of these.
        if (found := self._look_up(text)) is not None:
            return found
        await self._catch_up()
        # The end of the topic is not the end of what sync committed: its relay may be a moment behind.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELAY_LAG_S):
                await _until(lambda: self._look_up(text) is not None)
        return self._look_up(text)

    def _look_up(self, text: str) -> ReferenceRecord | None:
        snapshot = self._projection.snapshot
        # One look for both: no name looks like an id, since sync refuses such names.
        return self._living(snapshot.by_id.get(snapshot.ids.get(text, text)))

    def _living(self, typed: TypedRecord | None) -> ReferenceRecord | None:
        if typed is None or not isinstance(typed.record, ReferenceRecord) or typed.record.state in _GONE:
            return None
        return typed.record if self._authority.verified(typed) else None

    async def _catch_up(self) -> None:
        """Wait until everything that is in the topic now is in the snapshot."""
        try:
            async with asyncio.timeout(CATCH_UP_WITHIN_S):
                end = await self._reader.end_offset()
                await _until(lambda: self._projection.position >= end and self._projection.ready)
        except (TimeoutError, KeyfobError, KafkaError, OSError):
            raise Unavailable("The catalog can't be read at the moment.") from None


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a projection has no event for a name
        await asyncio.sleep(_POLL_S)
