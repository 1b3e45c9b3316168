"""The enrolled instances, from the `policy` topic: what services need that judge receipts but grant nothing.

All other records are passed over, so the snapshot stays small however many grants there are. The newest tick is kept
as it stands in the topic, for whoever passes it on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from rpds import HashTrieMap

from shared.crypto.signing import VerifyKey
from shared.delivery.receipts import Itself, Nobody, Resolvers, Voucher
from shared.events.policy import DeliveryProfile, InstanceRecord, InstanceState, TickRecord
from shared.events.registry import POLICY_RECORDS, by_type
from shared.projection.changes import Change, Removed, Upserted
from shared.projection.records import Authority, TypedRecord

KNOWN: Final = by_type(POLICY_RECORDS)


@dataclass(frozen=True, slots=True, eq=False)
class KnownInstance:
    """One instance; `typed` is the last record of it that could be read, None when there never was one.

    `since_seq` is the commit since which it is as it is: for a removed one, the first that it may have been.
    """

    id: str
    name: str
    active: bool
    since_seq: int
    typed: TypedRecord | None = None

    def voucher(self, authority: Authority, resolvers: Resolvers) -> Voucher | None:
        """Who vouches for its receipts, if policy really enrolled it; of one that is banned, nobody does.

        One that was removed is still believed: taking a gateway out of service is no doubt in its word.
        """
        if self.typed is None or not authority.verified(self.typed):
            return None
        match self.typed.record:
            case InstanceRecord(state=InstanceState.BANNED):
                return Nobody()
            case InstanceRecord(delivery=DeliveryProfile.HTTPS):
                return resolvers
            case InstanceRecord(signing_key=key):
                return Itself(VerifyKey.from_base64(key))
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Instances:
    """A snapshot: every instance that ever was, and policy's newest tick."""

    by_id: HashTrieMap[str, KnownInstance] = field(default_factory=HashTrieMap)
    tick: TypedRecord | None = None

    def all(self) -> Iterable[KnownInstance]:
        """Every instance, removed ones included."""
        return self.by_id.values()

    def get(self, instance_id: str) -> KnownInstance | None:
        """One instance by its id."""
        return self.by_id.get(instance_id)


def apply_change(before: Instances, change: Change) -> Instances:
    """The snapshot after one change. Raises for an instance whose key is no key: then it counts as unreadable."""
    match change:
        case Upserted(record) if isinstance(record.record, InstanceRecord):
            return replace(before, by_id=before.by_id.insert(record.key, _enrolled(record, record.record)))
        case Upserted(record) if isinstance(record.record, TickRecord):
            return replace(before, tick=record)
        case Removed(key, InstanceRecord.TYPE, _):
            return replace(before, by_id=before.by_id.insert(key, _departed(key, before.by_id.get(key))))
        case _:
            return before


def _enrolled(typed: TypedRecord, record: InstanceRecord) -> KnownInstance:
    # Tried at once: a key that is none makes the record unusable now, and not at the first receipt.
    if record.delivery is DeliveryProfile.SEALED:
        VerifyKey.from_base64(record.signing_key)
    return KnownInstance(record.id, record.name, record.state is InstanceState.ACTIVE, typed.seq, typed)


def _departed(key: str, known: KnownInstance | None) -> KnownInstance:
    """A removed instance may hold what it was given until its end has converged, so its key still counts."""
    if known is None:
        return KnownInstance(key, "", active=False, since_seq=0)
    # The commit that removed it is not told with the change, and what is unreadable names none.
    return KnownInstance(key, known.name, active=False, since_seq=known.since_seq + 1, typed=known.typed)
