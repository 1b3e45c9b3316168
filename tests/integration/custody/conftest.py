"""Replicas of the resolver's custody on a real database: keys in directories, values in rows, nothing of the bus."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest_asyncio
from sqlalchemy import insert, text

from services.dev.platform import Platform
from services.resolver.custody.keys import KeyDesk
from services.resolver.custody.recovering import books_for
from services.resolver.custody.rewrapping import Rewrapper
from services.resolver.custody.shelf import KeyShelf
from services.resolver.custody.standing import SCHEMA, Standing
from services.resolver.custody.tables import local_values
from services.resolver.custody.transactions import Books
from services.resolver.custody.values import LocalValues, _said
from services.resolver.domain.local_values import Owner, Slot
from services.resolver.settings import ResolverSettings
from shared.crypto.secret import SecretBytes
from shared.custody import Kek, Keyring, RecoveryKey
from shared.custody.directory import save_new_key
from shared.custody.providers import KekProvider
from shared.custody.providers.file import FileProvider
from shared.events.changes import Actor
from shared.events.custody import ValueAction
from shared.events.policy import LocalOwner
from tests.waiting import until

FILLED_AT_ONCE = 500
ALICE = Actor(idp="idp/administrators", subject="alice")


def place(number: int, *, owner: str = "profile/a") -> Slot:
    return Slot(Owner(LocalOwner.PROFILE, owner), "server/one", f"FIELD_{number}")


def value_of(number: int) -> bytes:
    return b"value \xff\x00\n${%d}" % number


def _row(number: int, ring: Keyring, *, at: datetime) -> dict[str, object]:
    slot = place(number)
    with SecretBytes(value_of(number)) as value:
        sealed = ring.seal(value, context=slot.context(1))
    return {
        "id": slot.id,
        "owner_kind": slot.owner.kind,
        "owner": slot.owner.text,
        "server_id": slot.server_id,
        "field": slot.field,
        "version": 1,
        "sealed": sealed.sealed,
        "wrap": sealed.wrap,
        "kek_id": ring.current.key_id,
        "set_at": at,
        "set_by_idp": ALICE.idp,
        "set_by": ALICE.subject,
    }


@dataclass(slots=True)
class Replica:
    """One replica at work."""

    standing: Standing
    rewrapper: Rewrapper
    desk: KeyDesk
    values: LocalValues

    async def enter(self, numbers: range) -> None:
        for number in numbers:
            with SecretBytes(value_of(number)) as value:
                await self.values.enter(place(number), value, server_name="one", by=ALICE)

    async def fill(self, count: int) -> None:
        """Leave `count` values as `enter` does, many in a commit: thousands of single ones would take a minute."""
        for first in range(0, count, FILLED_AT_ONCE):
            async with self.standing.books.commit() as work:
                current = await work.store.current()
                ring = await self.standing.ring_of(current.key_id if current else "")
                numbers = range(first, min(first + FILLED_AT_ONCE, count))
                rows = [_row(number, ring, at=work.at) for number in numbers]
                await work.store.session.execute(insert(local_values), rows)
                for number in numbers:
                    _said(work, place(number), ValueAction.SET, 1, server_name="one", by=ALICE)

    async def all_open(self, count: int) -> bool:
        """Whether each of the first `count` values opens to what was entered, by one look at the table."""
        kept = {one.id: one for one in await self.values.listed([place(0).owner.text])}
        for number in range(count):
            one = kept[place(number).id]
            assert one.sealed is not None
            ring = await self.standing.ring_of(one.key_id or "")
            with ring.open(one.sealed, context=place(number).context(one.version)) as secret:
                if not secret.matches(value_of(number)):
                    return False
        return True

    async def opens(self, number: int) -> bool:
        opened = await self.values.open(place(number))
        if opened is None:
            return False
        with opened.secret as secret:
            return secret.matches(value_of(number))

    async def rotated(self) -> None:
        """Wait until the rotation under way is finished."""

        async def finished() -> bool:
            rotation = (await self.desk.now()).rotation
            return rotation is not None and rotation.finished_at is not None

        await until(finished, within=30)


@dataclass(slots=True)
class House:
    """One installation: its database, and who runs on it."""

    dsn: str = field(repr=False)
    root: Path
    recovery: RecoveryKey = field(default_factory=RecoveryKey.generate)
    provider: KekProvider = field(default_factory=FileProvider)
    books: Books = field(init=False)

    def __post_init__(self) -> None:
        self.books = books_for(self.settings(self.root))

    def settings(self, keys: Path, **more: Any) -> ResolverSettings:
        url = self.dsn.replace("postgresql://", "postgresql+asyncpg://")
        return ResolverSettings(database_url=url, database_pool=5, keys_dir=keys, **more)

    def directory(self, name: str = "keys") -> Path:
        """A directory of keys."""
        made = self.root / name
        made.mkdir(exist_ok=True)
        return made

    async def generate(self, *directories: Path, recovery: bool = True) -> str:
        """A new key in these directories; its id."""
        kek = Kek.generate()
        for directory in directories or (self.directory(),):
            await save_new_key(directory, kek, self.provider, recovery=self.recovery.public if recovery else None)
        return kek.key_id

    def standing(self, name: str = "resolver-1", directory: Path | None = None) -> Standing:
        keys = directory or self.directory()
        return Standing(name, KeyShelf(keys, self.provider), books_for(self.settings(keys)))

    @contextlib.asynccontextmanager
    async def replica(
        self, name: str = "resolver-1", *, directory: Path | None = None, batch: int = 100, rewraps: bool = True
    ) -> AsyncIterator[Replica]:
        """One that is started and works in the background."""
        standing = self.standing(name, directory)
        rewrapper = Rewrapper(standing, batch=batch)
        tasks: list[asyncio.Task[None]] = []
        try:
            await standing.start()
            tasks.append(asyncio.create_task(standing.run()))
            if rewraps:
                tasks.append(asyncio.create_task(rewrapper.run()))
            yield Replica(standing, rewrapper, KeyDesk(standing, rewrapper), LocalValues(standing))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await standing.books.engine.dispose()

    async def sql(self, statement: str, **parameters: Any) -> list[Any]:
        async with self.books.engine.begin() as connection:
            found = await connection.execute(text(statement), parameters)
            return [tuple(row) for row in found] if found.returns_rows else []

    async def said(self) -> list[tuple[str, str]]:
        """(action, key id) of what was said about keys, in order."""
        rows = await self.sql("SELECT convert_from(payload, 'UTF8')::jsonb FROM outbox ORDER BY seq, position")
        return [(one["action"], one["key_id"]) for (one,) in rows if "key_id" in one]


@pytest_asyncio.fixture(loop_scope="session")
async def house(platform: Platform, tmp_path: Path) -> AsyncIterator[House]:
    """An installation with an empty schema and no key."""
    name = f"custody_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    made = House(platform.postgres.dsn(name, name), tmp_path)
    yield made
    await made.books.engine.dispose()
    await platform.postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
