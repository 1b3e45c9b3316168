"""`keyfob keys recover`: installation keys from the database and the recovery key, on a machine that has nothing else.

1. Read which keys were current, with their recovery blobs, and which of them values need.
2. Open each blob; the key in it must be the one that the database names beside it.
3. Let it open a value, if there is one: who can write to the database can put a blob of his own there.
4. Let the record say that it was restored.
5. Write it to a file of its own. What lies there already stays.

Nothing is written before step 3 has held. What can't be restored is named, with what is lost by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from services.resolver.custody.facts import Generation, KeyState
from services.resolver.custody.standing import SCHEMA, SOURCE
from services.resolver.custody.transactions import Books, change_id
from shared.crypto.key_files import KeyFileRefused
from shared.custody import Kek, RecoveryKey, SealedValue, ValueContext, open_at_rest, recover
from shared.custody.directory import key_path
from shared.custody.providers import KekProvider, load_kept, save_new_kept
from shared.custody.settings import CustodySettings
from shared.database import engine_for, sessions_for
from shared.errors import SealInvalid
from shared.events.changes import Actor
from shared.events.custody import KeyAction, KeyChange
from shared.outbox.commits import CommitLog

SAMPLES: Final = 10
"""Values that a restored key is tried on."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The key lies in `path` again; it opens `values` values."""

    key_id: str
    path: Path
    values: int


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """Its file was never lost."""

    key_id: str
    path: Path
    values: int


@dataclass(frozen=True, slots=True)
class Lost:
    """It can't be restored, and `values` values with it."""

    key_id: str
    values: int
    why: str


Sample: TypeAlias = tuple[ValueContext, SealedValue]
Recovery: TypeAlias = Restored | AlreadyThere | Lost


@dataclass(frozen=True, slots=True)
class Found:
    """What the database says of one key: its generation, how many values need it, and some of them."""

    key_id: str
    generation: Generation | None
    values: int
    samples: list[Sample]


async def restore(
    books: Books, key: RecoveryKey, *, directory: Path, provider: KekProvider, retired: bool = False
) -> list[Recovery]:
    """Restore all keys that are needed, and with `retired` those that only older backups need; what came of each.

    `Unavailable` without the database or the key's provider.
    """
    wanted = [one for one in await _found(books) if retired or _is_needed(one)]
    return [await _restore(books, one, key, directory, provider) for one in wanted]


def _is_needed(found: Found) -> bool:
    return found.values > 0 or (found.generation is not None and found.generation.state is not KeyState.RETIRED)


async def _found(books: Books) -> list[Found]:
    async with books.open() as store:
        generations = {one.key_id: one for one in await store.generations()}
        values = await store.values_by_key()
        # Newest first: whoever can restore only one wants that.
        known = sorted(generations, key=lambda key_id: -generations[key_id].n)
        # Also keys that only values name: what is lost with them must be said.
        ids = [*known, *sorted(set(values) - set(known))]
        return [
            Found(one, generations.get(one), values.get(one, 0), await store.some_under(one, most=SAMPLES))
            for one in ids
        ]


async def _restore(books: Books, found: Found, key: RecoveryKey, directory: Path, provider: KekProvider) -> Recovery:
    path = key_path(directory, found.key_id)
    # No file of a key is ever written over: what lies there is looked at instead.
    if path.exists():
        return await _look_at(path, found, provider)
    if found.generation is None or found.generation.recovery is None:
        return Lost(found.key_id, found.values, "it was made without --recovery")
    try:
        kek = recover(found.generation.recovery, key)
    except SealInvalid:
        needed = found.generation.recovery_key_id
        return Lost(found.key_id, found.values, f"this recovery key does not open it (it needs {needed})")
    # A blob does not say who made it: only rows that open prove that it holds the installation's own key.
    if kek.key_id != found.key_id or not _opens_any(kek, found.samples):
        return Lost(found.key_id, found.values, "its recovery blob holds another key: the database was changed")
    # First the record: a file without one would be taken for a key that was never lost, and nobody told of it.
    await _tell(books, found)
    await save_new_kept(path, kek, provider)
    return Restored(found.key_id, path, found.values)


async def _look_at(path: Path, found: Found, provider: KekProvider) -> Recovery:
    try:
        kek = await load_kept(path, provider)
    except KeyFileRefused as problem:
        return Lost(found.key_id, found.values, f"its file is in the way and can't be used: {problem.detail}")
    if kek.key_id != found.key_id:
        return Lost(found.key_id, found.values, f"{path} holds another key: move it away")
    return AlreadyThere(found.key_id, path, found.values)


def _opens_any(kek: Kek, samples: list[Sample]) -> bool:
    """Whether one of them opens, or there is none: a single damaged row must not keep a right key away."""
    return not samples or any(_opens(kek, context, sealed) for context, sealed in samples)


def _opens(kek: Kek, context: ValueContext, sealed: SealedValue) -> bool:
    try:
        open_at_rest(sealed, context=context, kek=kek).wipe()
    except SealInvalid:
        return False
    return True


async def _tell(books: Books, found: Found) -> None:
    """Let the record say who came to have which key; published when a resolver runs again."""
    async with books.commit() as work:
        work.say(
            KeyChange(
                id=change_id(),
                seq=work.seq,
                action=KeyAction.RECOVERED,
                key_id=found.key_id,
                values=found.values,
                # Whoever has the recovery key and the database needs no account of ours, so there is none to name.
                actor=Actor(idp="keyfob", subject="keyfob keys recover"),
                at=work.at,
            )
        )


def books_for(settings: CustodySettings) -> Books:
    """The resolver's books; nothing is connected yet. `books.engine` is the caller's to dispose of."""
    engine = engine_for(settings.database(), schema=SCHEMA, pool=settings.database_pool)
    return Books(engine, sessions_for(engine), CommitLog(schema=SCHEMA, source=SOURCE, state=False))
