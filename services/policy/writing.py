"""What a work wants, and how it is written: rows, records, digest and event in one commit."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.policy.domain.enrolments import EnrolmentRecord
from services.policy.domain.grants import next_edge
from services.policy.domain.kinds import kind_of, links, natural_key
from services.policy.domain.ports import Receipt
from services.policy.signing import PolicyKey
from services.policy.store import EnrolmentRow, Row, Store
from shared.events.changes import Actor, PolicyAction, PolicyChange
from shared.events.policy import GrantRecord, PolicyRecord, TickRecord
from shared.outbox.commits import Commit
from shared.projection import digest

TICK_ID: Final = "tick"


@dataclass(slots=True, kw_only=True)
class Plan:
    """Everything that one work wants, in memory until its end."""

    seq: int
    now: datetime
    actor: Actor
    puts: dict[str, PolicyRecord] = field(default_factory=dict)
    deletes: dict[str, PolicyRecord] = field(default_factory=dict)
    promises: list[EnrolmentRecord] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    change: PolicyChange | None = None
    tick: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return self.change is None and not self.tick

    def announce(
        self, action: PolicyAction, *, kind: str, entity_id: str, name: str, ended: tuple[str, ...]
    ) -> Receipt:
        """Say, once, what the work does."""
        if self.change is not None:
            raise ValueError("a work is announced once")
        self.change = PolicyChange(
            id=f"change/{uuid.uuid4().hex}",
            seq=self.seq,
            action=action,
            entity_kind=kind,
            entity_id=entity_id,
            entity_name=name,
            ended=ended,
            actor=self.actor,
            at=self.now,
        )
        return Receipt(entity_id=entity_id, seq=self.seq, event_id=self.change.id, ended=ended)

    def gone(self) -> tuple[PolicyRecord, ...]:
        """The records that say what is deleted."""
        return tuple(
            one.model_copy(update={"seq": self.seq, "revision": one.revision + 1, "deleted": True})
            for one in self.deletes.values()
        )


async def write(plan: Plan, *, store: Store, key: PolicyKey, commit: Commit) -> None:
    """Write a plan through an open session, which the caller commits."""
    event_id = "" if plan.change is None else plan.change.id
    # Before anything is written: it takes away what the rows say now.
    running = await _running_digest(plan, store)
    for record in plan.puts.values():
        payload = record.to_json()
        _, signature = key.sign(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        await store.put(_row(record, plan, payload, signature, event_id), links(record))
        commit.state(record, signer=key.sign)
    # Deletions behind what is put: who applies a commit in order never holds a link to what is gone.
    for record in plan.gone():
        commit.state(record, signer=key.sign)
    await store.remove(plan.deletes.keys())
    await _write_enrolments(plan, store, key, event_id)
    # Readers wait for a commit by a record that carries its number: one without any carries a tick.
    if plan.tick or not (plan.puts or plan.deletes):
        await _tick(plan, store, key, commit, running)
    # The event has the id of the change itself, so that whatever it causes can be told apart and is done once.
    if plan.change is not None:
        commit.event(plan.change, key=plan.change.entity_id, event_id=plan.change.id)
    await commit.flush()


async def _running_digest(plan: Plan, store: Store) -> str:
    """The digest of all living records after this plan."""
    before = (await store.standing()).digest
    # From the difference: summing up all records would make each commit slower than the one before.
    now = int(before, 16)
    for entity_id, payload in (await store.payloads([*plan.puts, *plan.deletes])).items():
        now = digest.remove(now, digest.entry(entity_id, payload))
    for record in plan.puts.values():
        now = digest.add(now, digest.entry(record.id, record.to_json()))
    after = digest.text(now)
    # A tick alone changes nothing: one write less, once a second, for ever.
    if after != before:
        await store.set_digest(after)
    return after


def _row(record: PolicyRecord, plan: Plan, payload: bytes, signature: bytes, event_id: str) -> Row:
    edge = next_edge(record, after=plan.now) if isinstance(record, GrantRecord) else None
    return Row(
        id=record.id,
        kind=kind_of(record),
        natural_key=natural_key(record),
        created_seq=plan.seq,
        seq=plan.seq,
        event_id=event_id,
        payload=payload,
        signature=signature,
        due_at=None if edge is None else edge.at,
    )


async def _write_enrolments(plan: Plan, store: Store, key: PolicyKey, event_id: str) -> None:
    for promise in plan.promises:
        payload = promise.model_dump_json().encode()
        row = EnrolmentRow(
            id=promise.id,
            name=promise.name,
            token_sha256=promise.token_sha256,
            seq=plan.seq,
            event_id=event_id,
            payload=payload,
            signature=key.promise(payload),
        )
        await store.add_enrolment(row)
    for enrolment_id, instance_id in plan.used.items():
        await store.use_enrolment(enrolment_id, instance_id=instance_id)
    for enrolment_id in plan.dropped:
        await store.drop_enrolment(enrolment_id)


async def _tick(plan: Plan, store: Store, key: PolicyKey, commit: Commit, running: str) -> None:
    revision = (await store.standing()).tick_revision + 1
    tick = TickRecord(id=TICK_ID, seq=plan.seq, revision=revision, at=plan.now, digest=running)
    await store.set_tick(revision=revision, at=plan.now)
    commit.state(tick, signer=key.sign)
