"""Numbering commits and writing what they say, in the caller's own transaction.

`begin` takes the next number and with it the row lock of the counter: commits of a service are serial from there to
the end of the transaction, which is what makes the order total. Take it late, flush, commit.

A commit always holds at least one record of state: readers wait for a commit by its number, and would wait for ever
for one that leaves no trace in the topic they read.
"""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import MetaData, func, insert, select, update
from sqlalchemy import event as orm_event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from shared.bus.cloudevents import PAYLOAD_LIMIT, Message, encode
from shared.bus.signatures import RecordSigner, to_header
from shared.errors import TooLarge
from shared.events.contract import Contract, StateRecord
from shared.outbox.tables import OutboxTables, channel, outbox_tables
from shared.telemetry import current_traceparent


class CommitLog:
    """Numbers the commits of one service. `source` is the CloudEvents source, such as `keyfob/policy`.

    With `state=False` commits hold events only, and nobody may wait for one by its number.
    """

    def __init__(self, *, schema: str, source: str, state: bool = True) -> None:
        self.schema = schema
        self.source = source
        self._state = state
        self._tables = outbox_tables(MetaData(), schema)

    async def begin(self, session: AsyncSession) -> Commit:
        """Take the next number in the session's transaction; others wait from here until it ends."""
        # One statement counts and takes the row's lock, which is held until the transaction ends.
        counter = self._tables.commit_counter
        statement = update(counter).values(seq=counter.c.seq + 1).returning(counter.c.seq)
        seq = (await session.execute(statement)).scalar_one()
        return Commit(
            seq=seq,
            session=session,
            source=self.source,
            schema=self.schema,
            tables=self._tables,
            needs_state=self._state,
        )


@dataclass(frozen=True, slots=True)
class _Said:
    contract: Contract
    key: str
    event_id: str
    payload: bytes
    signed: tuple[str, bytes] | None = None


@dataclass(slots=True, eq=False)
class Commit:
    """One numbered commit: say everything, then `flush`, then commit the session.

    Committing the session without a flush raises, because the number would be a hole.
    """

    seq: int
    session: AsyncSession
    source: str
    schema: str
    tables: OutboxTables
    needs_state: bool = True
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _said: list[_Said] = field(default_factory=list)
    _keys: set[tuple[str, str]] = field(default_factory=set)
    _flushed: bool = False

    def __post_init__(self) -> None:
        session = self.session.sync_session
        # This one: rolled back, the same session may begin another, which owes nothing.
        transaction = session.get_transaction()

        def refuse_unflushed(session: Session) -> None:
            # Savepoints raise the event too, and make nothing visible.
            ours = session.get_transaction() is transaction and not session.in_nested_transaction()
            if ours and not self._flushed:
                raise RuntimeError(f"commit {self.seq} was begun but never flushed: roll back instead")

        orm_event.listen(session, "before_commit", refuse_unflushed)

    def state(self, record: StateRecord, *, signer: RecordSigner | None = None) -> None:
        """Say what one entity is after this commit; its id is the key. At most once for each entity.

        `ValueError` for a record of another commit or a second one of the same entity, `TooLarge` beyond the limit.
        """
        if record.seq != self.seq:
            raise ValueError(f"{record.id} carries commit {record.seq}, this is {self.seq}")
        if (record.TOPIC, record.id) in self._keys:
            raise ValueError(f"{record.id} was already said in commit {self.seq}")
        self._keys.add((record.TOPIC, record.id))
        payload = _payload(record)
        signed = None
        if signer is not None:
            # Here, where the API has accepted it: relays hold no key, and sign nothing that somebody put into a table.
            signed = signer(topic=record.TOPIC, type_=record.TYPE, key=record.id, payload=payload)
        self._said.append(_Said(record, record.id, str(uuid.uuid4()), payload, signed))

    def event(self, contract: Contract, *, key: str, event_id: str) -> bytes:
        """Say that something happened; `event_id` names the cause, so that effects can be idempotent.

        Returns the payload as it will be in the topic, for whoever keeps it as well.
        """
        payload = _payload(contract)
        self._said.append(_Said(contract, key, event_id, payload))
        return payload

    async def flush(self) -> None:
        """Write everything to the outbox and wake the relay when the session commits. Once, at the end."""
        if self._flushed:
            raise ValueError(f"commit {self.seq} was already flushed")
        if self.needs_state and not self._keys:
            raise ValueError(f"commit {self.seq} holds no record of state, nobody could wait for it")
        self._flushed = True
        await self.session.execute(insert(self.tables.outbox), self._rows())
        # Delivered at commit and dropped at rollback, as it is in the same transaction.
        await self.session.execute(select(func.pg_notify(channel(self.schema), str(self.seq))))

    def _rows(self) -> list[dict[str, object]]:
        # Counted for each topic: its readers see no other part of the commit.
        parts, seen = Counter(said.contract.TOPIC for said in self._said), Counter[str]()
        rows: list[dict[str, object]] = []
        traceparent = current_traceparent()
        for position, said in enumerate(self._said):
            topic = said.contract.TOPIC
            seen[topic] += 1
            message = self._message(said, part=f"{seen[topic]}/{parts[topic]}", traceparent=traceparent)
            rows.append(self._row(message, position))
        return rows

    def _message(self, said: _Said, *, part: str, traceparent: str | None) -> Message:
        extensions = {"commitseq": str(self.seq), "commitpart": part, "commitid": str(self.id)}
        if said.signed is not None:
            key_id, signature = said.signed
            extensions |= {"keyid": key_id, "signature": to_header(signature)}
        return encode(
            said.contract,
            payload=said.payload,
            key=said.key,
            source=self.source,
            event_id=said.event_id,
            traceparent=traceparent,
            time=self.at,
            extensions=extensions,
        )

    def _row(self, message: Message, position: int) -> dict[str, object]:
        return {
            "seq": self.seq,
            "position": position,
            "parts": len(self._said),
            "commit_id": self.id,
            "topic": message.topic,
            "key": message.key,
            "headers": {name: value.decode() for name, value in message.headers},
            "payload": message.value,
        }


def _payload(contract: Contract) -> bytes:
    payload = contract.to_json()
    if len(payload) > PAYLOAD_LIMIT:
        raise TooLarge(f"{contract.TYPE}: {len(payload)} bytes, the limit is {PAYLOAD_LIMIT}")
    return payload
