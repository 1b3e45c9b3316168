"""What the database says about keys and rotations, and which of it is wrong: values and pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from shared.custody import ValueContext, read_recovery_ids
from shared.errors import ChoiceNeeded, Conflict, SealInvalid
from shared.events.changes import Actor


class KeyState(StrEnum):
    """What an installation key is used for."""

    CURRENT = "current"
    """Seals what is new."""
    FORMER = "former"
    """Opens what was sealed before, until nothing needs it."""
    RETIRED = "retired"
    """Nothing here needs it; older backups do."""


@dataclass(frozen=True, slots=True)
class Generation:
    """An installation key since it became current; `n` counts from 1."""

    n: int
    key_id: str
    state: KeyState
    recovery: bytes | None = field(repr=False)
    since: datetime
    made_by: Actor
    retired_at: datetime | None = None

    @property
    def recovery_key_id(self) -> str | None:
        """Whose other half restores it; None without a blob, or with one that nobody can read."""
        return recovery_id_of(self.recovery)


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far bringing all values to generation `n` has come; `total` as counted when it began."""

    n: int
    total: int
    done: int
    damaged: int
    started_at: datetime
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReplicaKeys:
    """A replica that was heard lately, and the keys that lie in its directory. `heard_s` ago, in seconds."""

    replica_id: str
    key_ids: frozenset[str]
    heard_s: float


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A value's row, as far as a rotation looks at it."""

    id: str
    context: ValueContext
    wrap: bytes = field(repr=False)


def recovery_id_of(blob: bytes | None) -> str | None:
    """The id of the recovery key that a blob needs."""
    try:
        return None if blob is None else read_recovery_ids(blob).recovery
    except SealInvalid:
        return None


def waiting_keys(generations: Iterable[Generation], replicas: Sequence[ReplicaKeys]) -> tuple[str, ...]:
    """Keys that every live replica has and that never were current: one of them may become it."""
    # Where nobody is heard, nobody is known to have a key.
    if not replicas:
        return ()
    everywhere = frozenset.intersection(*(replica.key_ids for replica in replicas))
    return tuple(sorted(everywhere - {generation.key_id for generation in generations}))


def choose_next(key_id: str | None, generations: Sequence[Generation], replicas: Sequence[ReplicaKeys]) -> str:
    """The key to rotate to: the one that was named, or the only one that waits. `Conflict` says what is in the way."""
    if key_id is None:
        match waiting_keys(generations, replicas):
            case (only,):
                return only
            case ():
                raise Conflict(
                    "No new key lies in the directory of every replica: make one with `keyfob keys generate`, "
                    "and give it to all of them."
                )
            case several:
                raise ChoiceNeeded("Several new keys wait: name one of them.", several)
    if any(generation.key_id == key_id for generation in generations):
        raise Conflict(f"The key {key_id} was current before, and no key becomes it twice: make a new one.")
    lacking = sorted(replica.replica_id for replica in replicas if key_id not in replica.key_ids)
    if lacking or not replicas:
        raise Conflict(f"The key {key_id} does not lie in the directory of {', '.join(lacking) or 'any replica'} yet.")
    return key_id


def check_recovery(before: Generation | None, blob: bytes | None) -> None:
    """`Conflict` if the installation was recoverable until now and would no longer be."""
    if blob is None and before is not None and before.recovery is not None:
        raise Conflict(
            f"The current key {before.key_id} can be restored by the recovery key {before.recovery_key_id}, the new "
            "one by none: make it with `keyfob keys generate --recovery PUBLIC_KEY`."
        )
