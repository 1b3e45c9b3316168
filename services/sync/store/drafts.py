"""A commit in the making: first the tables, then the outbox, in the caller's transaction."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from services.sync.domain.commits import Applied, Moment
from services.sync.store.references import ReferenceStore
from services.sync.store.signatures import Seal
from services.sync.store.sources import SourceStore
from shared.events.catalog import SourceRecord
from shared.events.changes import Detection
from shared.outbox.commits import Commit, CommitLog


class Draft:
    """What one commit says. Every entity at most once."""

    def __init__(self, commit: Commit, session: AsyncSession, seal: Seal) -> None:
        """Write with `session`, under the number of `commit`."""
        self._commit = commit
        self._references = ReferenceStore(session, seal)
        self._sources = SourceStore(session, seal)
        self._seal = seal
        self._said: list[Applied] = []
        self._source: SourceRecord | None = None

    @classmethod
    async def begin(cls, commits: CommitLog, session: AsyncSession, seal: Seal) -> Draft:
        """Take the next number; others wait from here."""
        return cls(await commits.begin(session), session, seal)

    @property
    def seq(self) -> int:
        """The number of this commit."""
        return self._commit.seq

    def moment(self, detected_by: Detection) -> Moment:
        """When and as what things are said."""
        return Moment(seq=self._commit.seq, at=self._commit.at, detected_by=detected_by)

    def put(self, applied: Applied) -> None:
        """Say a reference, and what happened to it."""
        self._said.append(applied)

    def put_source(self, record: SourceRecord) -> None:
        """Say the source."""
        self._source = record

    async def flush(self) -> None:
        """Write everything that was said."""
        if self._source is not None:
            signed = self._seal.sign(self._source)
            await self._sources.put(self._source, signed)
            self._commit.state(self._source, signer=signed.signer())
        # Sources before references, and rows before the outbox: the order in which locks are taken everywhere.
        await self._put_references()
        for applied in self._said:
            if (change := applied.change) is not None:
                self._commit.event(change, key=change.reference_id, event_id=change.id)
        await self._commit.flush()

    async def _put_references(self) -> None:
        entries = [(applied.known, self._seal.sign(applied.known.record)) for applied in self._said]
        if entries:
            await self._references.put(entries, at=self._commit.at)
        for known, signed in entries:
            self._commit.state(known.record, signer=signed.signer())
