"""Changing installation keys: what is there, making a new key current, retiring an old one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from services.resolver.custody.facts import (
    Generation,
    KeyState,
    ReplicaKeys,
    Rotation,
    check_recovery,
    choose_next,
    recovery_id_of,
    waiting_keys,
)
from services.resolver.custody.rewrapping import Rewrapper
from services.resolver.custody.standing import HEARD_WITHIN_S, Standing
from services.resolver.custody.transactions import Work, change_id
from shared.crypto.key_files import KeyFileRefused
from shared.custody import KeysMissing
from shared.custody.key_text import is_key_id
from shared.errors import BadRequest, Conflict
from shared.events.changes import Actor
from shared.events.custody import KeyAction, KeyChange

PATIENCE_S: Final = 2.5
"""Longer than two heartbeats of a replica."""
LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class KeysNow:
    """Everything about keys at one moment; `values` by key id."""

    generations: tuple[Generation, ...]
    values: Mapping[str, int]
    replicas: tuple[ReplicaKeys, ...]
    rotation: Rotation | None

    @property
    def waiting(self) -> tuple[str, ...]:
        """Keys that may become current."""
        return waiting_keys(self.generations, self.replicas)

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys that values need and that no generation knows: the database was changed by hand, or badly restored."""
        return tuple(sorted(set(self.values) - {one.key_id for one in self.generations}))


@dataclass(frozen=True, slots=True)
class KeyDesk:
    """Acts on keys, one at a time across all replicas."""

    standing: Standing
    rewrapper: Rewrapper

    async def now(self) -> KeysNow:
        """What there is."""
        self.standing.check()
        # Of one moment: a rotation that begins between two statements would name a key that the first did not see.
        async with self.standing.books.picture() as store:
            return KeysNow(
                await store.generations(),
                await store.values_by_key(),
                await store.replicas(heard_within_s=HEARD_WITHIN_S),
                await store.rotation(),
            )

    async def rotate(self, key_id: str | None, *, by: Actor) -> KeysNow:
        """Make a key current that all replicas have, together with its recovery blob, and begin to rewrap.

        `Conflict` says what is in the way, `ChoiceNeeded` which keys there are to choose from.
        """
        self.standing.check()
        if key_id is not None and not is_key_id(key_id):
            raise BadRequest("A key id has 16 characters of a-z and 2-7.")
        # Our own directory may have the key since our last look: untold, we would wait for ourselves.
        await self.standing.announce()
        # Outside the commit, which holds up everybody else's; inside, all of it is looked at again.
        await self._everybody_looked(key_id)
        async with self.standing.books.commit() as work:
            await self._make_current(work, key_id, by)
        self.rewrapper.begun.set()
        return await self.now()

    async def _everybody_looked(self, key_id: str | None) -> None:
        """Give the others the time of a look or two: the key may have been put there a moment ago."""
        for _ in range(round(PATIENCE_S / LOOK_S)):
            now = await self.now()
            lacking = [one for one in now.replicas if key_id not in one.key_ids]
            if now.waiting if key_id is None else not lacking:
                return
            await asyncio.sleep(LOOK_S)

    async def _make_current(self, work: Work, key_id: str | None, by: Actor) -> None:
        store = work.store
        rotation = await store.rotation()
        if rotation is not None and rotation.finished_at is None:
            raise Conflict("A rotation is under way already: `keyfob keys status` shows how far it is.")
        generations = await store.generations()
        replicas = await store.replicas(heard_within_s=HEARD_WITHIN_S)
        chosen = choose_next(key_id, generations, replicas)
        before = await store.current()
        # A file that a person made: a public key in the database might be that of whoever can write there.
        blob = self._blob(chosen)
        check_recovery(before, blob)
        values = await store.values_by_key()
        self._expect(chosen, values)
        n = await store.make_current(chosen, recovery=blob, at=work.at, by=by, after=generations[-1])
        total = sum(values.values())
        await store.begin_rotation(n, total=total, at=work.at)
        work.say(
            KeyChange(
                id=change_id(),
                seq=work.seq,
                action=KeyAction.MADE_CURRENT,
                key_id=chosen,
                previous_key_id=before.key_id if before else None,
                recovery_key_id=recovery_id_of(blob),
                values=total,
                actor=by,
                at=work.at,
            )
        )

    def _expect(self, key_id: str, in_use: Iterable[str]) -> None:
        """The key must really be here, and so must everything that it is to take over from."""
        try:
            self.standing.shelf.ring(key_id).expect(in_use)
        except KeysMissing as problem:
            raise Conflict(str(problem)) from None

    def _blob(self, key_id: str) -> bytes | None:
        try:
            return self.standing.shelf.recovery_blob(key_id)
        except KeyFileRefused as problem:
            raise Conflict(problem.detail) from None

    async def retire(self, key_id: str, *, by: Actor) -> KeysNow:
        """Take note that nothing here needs a key any more; `Conflict` while something does."""
        self.standing.check()
        async with self.standing.books.commit() as work:
            generations = {one.key_id: one for one in await work.store.generations()}
            rotation = await work.store.rotation()
            values = (await work.store.values_by_key()).get(key_id, 0)
            _check_retirable(key_id, generations, rotation, values)
            await work.store.retire(key_id, at=work.at)
            work.say(
                KeyChange(id=change_id(), seq=work.seq, action=KeyAction.RETIRED, key_id=key_id, actor=by, at=work.at)
            )
        return await self.now()


def _check_retirable(
    key_id: str, generations: Mapping[str, Generation], rotation: Rotation | None, values: int
) -> None:
    generation = generations.get(key_id)
    if generation is None:
        raise Conflict(f"No key {cut_id(key_id)} was ever current here: there is nothing to retire.")
    if generation.state is KeyState.CURRENT:
        raise Conflict(f"The key {key_id} is the current one: rotate to another first.")
    if generation.state is KeyState.RETIRED:
        raise Conflict(f"The key {key_id} is retired already.")
    if rotation is not None and rotation.finished_at is None:
        raise Conflict("A rotation is under way: wait until `keyfob keys status` says that it is finished.")
    if values:
        raise Conflict(
            f"{values} values still need the key {key_id}: they did not open in the last rotation. Delete or enter "
            "them again first."
        )


def cut_id(key_id: str) -> str:
    """A key id as it may be shown: what a caller sent, only if it is spelled like one."""
    return key_id if is_key_id(key_id) else "of that name"
