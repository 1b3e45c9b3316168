"""`Register` on PostgreSQL: what administrators do, each in one transaction."""

from __future__ import annotations

import uuid
from typing import Final

from sqlalchemy import text

from services.sync.domain.commits import Applied, Edit, edited, forget, revised
from services.sync.domain.ports import Connected, Edited, Receipt
from services.sync.store.drafts import Draft
from services.sync.store.outages import transaction
from services.sync.store.references import ReferenceStore
from services.sync.store.signatures import Seal
from services.sync.store.sources import SourceStore
from shared.database import Sessions
from shared.errors import Conflict
from shared.events.catalog import KvSource, SourceRecord
from shared.events.changes import Detection
from shared.outbox.commits import CommitLog

_LOCK_NAMES: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('keyfob-source-names', 0))")


class PostgresRegister:
    """What administrators do to sources and references."""

    def __init__(self, sessions: Sessions, commits: CommitLog, seal: Seal) -> None:
        """Write through `sessions`, numbered by `commits`, signed by `seal`."""
        self._sessions = sessions
        self._commits = commits
        self._seal = seal

    async def connect(self, name: str, place: KvSource) -> Connected:
        """See `Register`."""
        async with transaction(self._sessions) as session:
            # Before the look: two at once would both find the name free, and one would fail on the index.
            await session.execute(_LOCK_NAMES)
            existing = await SourceStore(session, self._seal).find(name)
            if existing is not None:
                return _same(existing, place)
            draft = await Draft.begin(self._commits, session, self._seal)
            record = SourceRecord(id=f"source/{uuid.uuid4().hex}", seq=draft.seq, revision=1, name=name, place=place)
            draft.put_source(record)
            await draft.flush()
            return Connected(record, Receipt(entity_id=record.id, seq=record.seq))

    async def disconnect(self, source_id: str) -> Receipt | None:
        """See `Register`."""
        async with transaction(self._sessions) as session:
            source = await SourceStore(session, self._seal).lock(source_id)
            if source is None:
                return None
            references = await ReferenceStore(session, self._seal).of_source(source_id)
            draft = await Draft.begin(self._commits, session, self._seal)
            forgotten = [forget(known, draft.moment(Detection.MANUAL)) for known in references]
            for applied in forgotten:
                draft.put(applied)
            changes = {"seq": draft.seq, "revision": source.revision + 1, "deleted": True}
            draft.put_source(source.model_copy(update=changes))
            await draft.flush()
            events = [applied.change.id for applied in forgotten if applied.change is not None]
            # Topics keep the order, and gateways answer cumulatively: who is past the last is past them all.
            return Receipt(entity_id=source.id, seq=draft.seq, event_id=events[-1] if events else "")

    async def edit(self, reference_id: str, edit: Edit) -> Edited | None:
        """See `Register`."""
        async with transaction(self._sessions) as session:
            store = ReferenceStore(session, self._seal)
            known = await store.by_id(reference_id)
            if known is None:
                return None
            wanted = edited(known, edit)
            # Nothing new takes no number: a script that says the same again wakes nobody.
            if wanted == known:
                return Edited(known.record, Receipt(entity_id=reference_id, seq=known.record.seq))
            draft = await Draft.begin(self._commits, session, self._seal)
            if wanted.record.name != known.record.name and await store.is_taken(wanted.record.name):
                raise Conflict("Another reference has that name.")
            after = revised(wanted, draft.seq)
            draft.put(Applied(after, None))
            await draft.flush()
            return Edited(after.record, Receipt(entity_id=reference_id, seq=draft.seq))


def _same(existing: SourceRecord, place: KvSource) -> Connected:
    if existing.place != place:
        raise Conflict("Another source has that name: remove it first, or choose another name.")
    return Connected(existing, Receipt(entity_id=existing.id, seq=existing.seq))
