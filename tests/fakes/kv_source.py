"""A KV v2 source in memory: what the contract of `SourceReader` says, with doors that tests can close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from services.sync.domain.observations import Denied, Found, Missing, Observation, Unreached, Unread
from services.sync.sources.port import Entry, FolderDenied, Listed, Reached, Unsuitable
from shared.events.catalog import ReferenceState


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a secret: the names in it, never the values."""

    at: datetime
    keys: tuple[str, ...]
    deleted_at: datetime | None = None
    destroyed: bool = False


@dataclass(slots=True)
class Secret:
    """A secret with its history."""

    born_at: datetime
    versions: list[Version] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class FakeSource:
    """Reader and vault in one."""

    keys_visible: bool = False
    lists_details: bool = False
    secrets: dict[str, Secret] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    """Paths, and folders with a slash at the end."""
    down: str = ""
    unread: set[str] = field(default_factory=set)
    """Paths of which no answer can be used, while the source answers."""
    reads: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """When set, reads wait for it after they have looked: answers that are late."""
    _now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def tick(self) -> datetime:
        """The vault's clock: every act has a moment of its own."""
        self._now += timedelta(seconds=1)
        return self._now

    async def put(self, path: str, values: Mapping[str, str]) -> int:
        at = self.tick()
        secret = self.secrets.setdefault(path, Secret(born_at=at))
        secret.versions.append(Version(at, tuple(sorted(values))))
        return len(secret.versions)

    async def delete(self, path: str) -> None:
        self._change(path, deleted_at=self.tick())

    async def undelete(self, path: str, version: int) -> None:
        self._change(path, version, deleted_at=None)

    async def destroy(self, path: str, version: int) -> None:
        self._change(path, version, destroyed=True)

    async def forget(self, path: str) -> None:
        del self.secrets[path]

    async def describe(self, path: str, **words: str) -> None:
        self.secrets.setdefault(path, Secret(born_at=self.tick())).words.update(words)

    async def deny(self, path: str) -> None:
        self.denied.add(path)

    def _change(self, path: str, version: int = 0, **changes: object) -> None:
        versions = self.secrets[path].versions
        versions[version - 1] = replace(versions[version - 1], **changes)  # type: ignore[arg-type]

    async def entries(self) -> AsyncIterator[Entry]:
        if self.down:
            yield Unreached(self.down)
            return
        closed = {folder for folder in self.denied if folder.endswith("/")}
        for folder in closed:
            yield FolderDenied(folder)
        for path in sorted(self.secrets):
            if not any(path.startswith(folder) for folder in closed):
                yield Listed(path, self._found(path, keys=False) if self.lists_details else None)

    async def read(self, path: str, *, keys: bool) -> Observation:
        self.reads.append(path)
        seen = self._look(path, keys=keys)
        if self.gate is not None:
            await self.gate.wait()
        return seen

    def _look(self, path: str, *, keys: bool) -> Observation:
        if self.down:
            return Unreached(self.down)
        if path in self.unread:
            return Unread(path, "the answer is too long")
        if path in self.denied or any(path.startswith(one) for one in self.denied if one.endswith("/")):
            return Denied(path)
        return self._found(path, keys=keys) if path in self.secrets else Missing(path)

    async def check(self) -> Reached | Unsuitable | Unreached:
        return Unreached(self.down) if self.down else Reached()

    def _found(self, path: str, *, keys: bool) -> Found:
        secret = self.secrets[path]
        current = secret.versions[-1] if secret.versions else None
        state = ReferenceState.ACTIVE
        if current is None or current.destroyed:
            state = ReferenceState.REMOVED
        elif current.deleted_at is not None:
            state = ReferenceState.PENDING_DELETION
        names = current.keys if current and keys and self.keys_visible and state is ReferenceState.ACTIVE else None
        return Found(
            path=path,
            version=len(secret.versions),
            born_at=secret.born_at,
            created_at=current.at if current else secret.born_at,
            state=state,
            since=(current.deleted_at or current.at) if current else secret.born_at,
            keys=names,
            owner=secret.words.get("owner", ""),
            description=secret.words.get("description", ""),
        )
