"""The statements of policy's store over dictionaries, with rows that a test can change behind policy's back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.policy.domain.kinds import Kind
from services.policy.store import Cursor, EnrolmentRow, Row, Standing
from shared.bus.signatures import RecordSigner
from shared.events.contract import Contract, StateRecord


@dataclass(slots=True)
class FakeStore:
    """`services.policy.store.Store` in memory."""

    rows: dict[str, Row] = field(default_factory=dict)
    links: dict[str, frozenset[str]] = field(default_factory=dict)
    enrolments: dict[str, EnrolmentRow] = field(default_factory=dict)
    now_standing: Standing = field(default_factory=lambda: Standing("0" * 64, 0, None))

    def change(self, entity_id: str, **columns: object) -> None:
        """Change a row as somebody with access to the database would."""
        row = replace(self.rows[entity_id], **columns)  # type: ignore[arg-type]
        del self.rows[entity_id]
        self.rows[row.id] = row
        self.links[row.id] = self.links.pop(entity_id)

    async def by_id(self, entity_id: str) -> Row | None:
        return self.rows.get(entity_id)

    async def by_natural_key(self, kind: Kind, natural_key: str) -> Row | None:
        found = [row for row in self.rows.values() if (row.kind, row.natural_key) == (kind, natural_key)]
        return found[0] if found else None

    async def by_ids(self, ids: Iterable[str]) -> Sequence[Row]:
        return [self.rows[one] for one in sorted(set(ids)) if one in self.rows]

    async def linked(self, kinds: Collection[Kind], targets: Sequence[str]) -> Sequence[Row]:
        rows = sorted(self.rows.values(), key=lambda row: (row.created_seq, row.id))
        return [row for row in rows if row.kind in kinds and self.links[row.id].issuperset(targets)]

    async def page(self, kind: Kind, *, targets: Sequence[str], after: Cursor | None, limit: int) -> Sequence[Row]:
        rows = await self.linked({kind}, targets)
        return [row for row in rows if after is None or (row.created_seq, row.id) > after][:limit]

    async def due(self, at: datetime) -> Row | None:
        due = sorted((row.due_at, row.id) for row in self.rows.values() if row.due_at is not None and row.due_at <= at)
        return self.rows[due[0][1]] if due else None

    async def payloads(self, ids: Collection[str]) -> dict[str, bytes]:
        return {one: self.rows[one].payload for one in ids if one in self.rows}

    async def put(self, row: Row, targets: Collection[str]) -> None:
        before = self.rows.get(row.id)
        self.rows[row.id] = row if before is None else replace(row, created_seq=before.created_seq)
        self.links[row.id] = frozenset(targets)

    async def remove(self, ids: Collection[str]) -> None:
        for one in ids:
            self.rows.pop(one, None)
            self.links.pop(one, None)

    async def standing(self) -> Standing:
        return self.now_standing

    async def set_digest(self, digest: str) -> None:
        self.now_standing = self.now_standing._replace(digest=digest)

    async def set_tick(self, *, revision: int, at: datetime) -> None:
        self.now_standing = self.now_standing._replace(tick_revision=revision, ticked_at=at)

    async def enrolment_by_token(self, token_sha256: str) -> EnrolmentRow | None:
        found = [row for row in self.enrolments.values() if row.token_sha256 == token_sha256]
        return found[0] if found else None

    async def enrolment_named(self, text: str) -> EnrolmentRow | None:
        found = sorted((row.seq, row.id) for row in self.enrolments.values() if text in {row.name, row.id})
        return self.enrolments[found[-1][1]] if found else None

    async def enrolment_page(self, *, after: Cursor | None, limit: int) -> Sequence[EnrolmentRow]:
        rows = sorted(self.enrolments.values(), key=lambda row: (row.seq, row.id))
        return [row for row in rows if after is None or (row.seq, row.id) > after][:limit]

    async def add_enrolment(self, row: EnrolmentRow) -> None:
        self.enrolments[row.id] = row

    async def use_enrolment(self, enrolment_id: str, *, instance_id: str) -> None:
        self.enrolments[enrolment_id] = replace(self.enrolments[enrolment_id], instance_id=instance_id)

    async def drop_enrolment(self, enrolment_id: str) -> None:
        del self.enrolments[enrolment_id]


@dataclass(slots=True)
class FakeCommit:
    """What one commit says, with the rule of the real one: a record once, and at least one of state."""

    seq: int
    records: list[StateRecord] = field(default_factory=list)
    signatures: dict[str, bytes] = field(default_factory=dict)
    events: list[tuple[str, str, Contract]] = field(default_factory=list)
    flushed: bool = False

    def state(self, record: StateRecord, *, signer: RecordSigner) -> None:
        assert record.seq == self.seq
        assert record.id not in self.signatures
        payload = record.to_json()
        _, self.signatures[record.id] = signer(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        self.records.append(record)

    def event(self, contract: Contract, *, key: str, event_id: str) -> bytes:
        self.events.append((key, event_id, contract))
        return contract.to_json()

    async def flush(self) -> None:
        assert self.records, "nobody could wait for a commit without a record of state"
        assert not self.flushed
        self.flushed = True
