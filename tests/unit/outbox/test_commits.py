"""What one commit says: each entity once, under its own number, signed as it will be on the wire, or nothing at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from shared.bus.cloudevents import PAYLOAD_LIMIT, Message
from shared.bus.signatures import from_header, record_signer, record_verifies
from shared.crypto.signing import SigningKey
from shared.errors import TooLarge
from shared.outbox.commits import Commit
from shared.outbox.tables import channel, create_statements, outbox_tables
from shared.projection.records import commit_part
from tests.fakes.state_topic import CHANGES, STATE, Door, Switched, lamp

SCHEMA = "keyfob_tests"


class FakeSession:
    """Keeps what is executed; the transaction itself is SQLAlchemy's own, without a database."""

    def __init__(self) -> None:
        self.sync_session = Session()
        self.sync_session.begin()
        self.executed: list[tuple[str, Any]] = []

    async def execute(self, statement: Any, rows: Any = None) -> None:
        compiled = statement.compile()
        self.executed.append((str(compiled), compiled.params if rows is None else rows))

    def commit(self) -> None:
        self.sync_session.commit()

    @property
    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.executed[0][1]
        return found


def commit_of(session: FakeSession, seq: int = 7, *, needs_state: bool = True) -> Commit:
    return Commit(
        seq=seq,
        session=cast("AsyncSession", session),
        source="keyfob/tests",
        schema=SCHEMA,
        tables=outbox_tables(MetaData(), SCHEMA),
        needs_state=needs_state,
    )


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def commit(session: FakeSession) -> Commit:
    return commit_of(session)


async def test_everything_is_written_in_the_order_in_which_it_was_said(session: FakeSession, commit: Commit) -> None:
    commit.state(lamp("a", 7))
    commit.event(Switched(lamp="lamp/a"), key="lamp/a", event_id="e-1")
    commit.state(lamp("b", 7))
    await commit.flush()
    assert [(row["position"], row["topic"], row["key"]) for row in session.rows] == [
        (0, STATE, "lamp/a"),
        (1, CHANGES, "lamp/a"),
        (2, STATE, "lamp/b"),
    ]
    assert {(row["seq"], row["parts"], row["commit_id"]) for row in session.rows} == {(7, 3, commit.id)}


async def test_each_topic_learns_which_message_is_its_last_of_the_commit(session: FakeSession, commit: Commit) -> None:
    commit.state(lamp("a", 7))
    commit.event(Switched(lamp="lamp/a"), key="lamp/a", event_id="e-1")
    commit.state(lamp("b", 7))
    await commit.flush()
    parts = [commit_part({name: value.encode() for name, value in row["headers"].items()}) for row in session.rows]
    assert [(part.seq, part.last) for part in parts if part is not None] == [(7, False), (7, True), (7, True)]


async def test_a_record_is_signed_as_it_will_stand_in_the_topic(session: FakeSession, commit: Commit) -> None:
    key = SigningKey.generate()
    commit.state(lamp("a", 7, colour="red"), signer=record_signer(key))
    await commit.flush()
    (row,) = session.rows
    signature = from_header(row["headers"]["ce_signature"])
    assert signature is not None
    assert row["headers"]["ce_keyid"] == key.key_id
    assert record_verifies(
        key.verify_key, signature, topic=STATE, type_="keyfob.tests.lamp.v1", key="lamp/a", payload=row["payload"]
    )


async def test_an_event_names_its_cause_and_gives_back_its_bytes(session: FakeSession, commit: Commit) -> None:
    commit.state(lamp("a", 7))
    payload = commit.event(Switched(lamp="lamp/a"), key="lamp/a", event_id="cause/1")
    await commit.flush()
    row = session.rows[1]
    assert (row["headers"]["ce_id"], row["payload"]) == ("cause/1", payload)
    assert json.loads(payload) == {"lamp": "lamp/a"}


async def test_all_of_a_commit_happened_at_one_time(session: FakeSession, commit: Commit) -> None:
    commit.at = datetime(2026, 1, 2, tzinfo=UTC)
    commit.state(lamp("a", 7))
    commit.state(lamp("b", 7))
    await commit.flush()
    assert {row["headers"]["ce_time"] for row in session.rows} == {"2026-01-02T00:00:00+00:00"}


async def test_the_relay_is_woken_when_the_transaction_commits(session: FakeSession, commit: Commit) -> None:
    commit.state(lamp("a", 7))
    await commit.flush()
    statement, parameters = session.executed[1]
    assert "pg_notify" in statement
    assert {channel(SCHEMA), "7"} <= set(parameters.values())


def test_a_record_of_another_commit_is_a_mistake(commit: Commit) -> None:
    with pytest.raises(ValueError, match="carries commit 6, this is 7"):
        commit.state(lamp("a", 6))


def test_an_entity_is_said_once(commit: Commit) -> None:
    commit.state(lamp("a", 7))
    with pytest.raises(ValueError, match="already said"):
        commit.state(lamp("a", 7, colour="red"))
    with pytest.raises(ValueError, match="already said"):
        commit.state(Door(id="lamp/a", seq=7, revision=1))


def test_what_no_message_can_carry_is_refused_before_anything_is_written(session: FakeSession, commit: Commit) -> None:
    with pytest.raises(TooLarge, match=str(PAYLOAD_LIMIT)):
        commit.state(lamp("a", 7, colour="x" * PAYLOAD_LIMIT))
    with pytest.raises(TooLarge):
        commit.event(Switched(lamp="x" * PAYLOAD_LIMIT), key="k", event_id="e")
    assert session.executed == []


async def test_a_commit_without_a_record_of_state_would_be_waited_for_in_vain(commit: Commit) -> None:
    commit.event(Switched(lamp="lamp/a"), key="lamp/a", event_id="e-1")
    with pytest.raises(ValueError, match="nobody could wait for it"):
        await commit.flush()


async def test_a_log_may_hold_events_alone(session: FakeSession) -> None:
    commit = commit_of(session, needs_state=False)
    commit.event(Switched(lamp="lamp/a"), key="lamp/a", event_id="e-1")
    await commit.flush()
    assert len(session.rows) == 1


async def test_it_is_flushed_once(commit: Commit) -> None:
    commit.state(lamp("a", 7))
    await commit.flush()
    with pytest.raises(ValueError, match="already flushed"):
        await commit.flush()


class TestForgottenFlush:
    def test_its_number_would_be_a_hole_so_the_transaction_does_not_commit(
        self, session: FakeSession, commit: Commit
    ) -> None:
        commit.state(lamp("a", 7))
        with pytest.raises(RuntimeError, match="roll back instead"):
            session.commit()

    def test_rolled_back_it_is_forgotten(self, session: FakeSession, commit: Commit) -> None:
        commit.state(lamp("a", 7))
        session.sync_session.rollback()
        session.sync_session.begin()
        session.commit()

    async def test_flushed_it_commits(self, session: FakeSession, commit: Commit) -> None:
        commit.state(lamp("a", 7))
        await commit.flush()
        session.commit()

    def test_a_savepoint_inside_is_not_the_end_of_it(self, session: FakeSession, commit: Commit) -> None:
        commit.state(lamp("a", 7))
        with session.sync_session.begin_nested():
            pass
        with pytest.raises(RuntimeError, match="roll back instead"):
            session.commit()


def test_the_tables_of_a_service_stand_in_its_own_schema() -> None:
    made = [str(statement) for statement in create_statements(SCHEMA)]
    assert len(made) == 5
    assert all(f"{SCHEMA}." in statement for statement in made)
    assert outbox_tables(metadata := MetaData(), SCHEMA) == outbox_tables(metadata, SCHEMA)


def test_a_message_has_exactly_one_place_in_the_order() -> None:
    outbox = outbox_tables(MetaData(), SCHEMA).outbox
    assert [column.name for column in outbox.primary_key] == ["seq", "position"]
    assert not any(column.nullable for column in outbox.columns)


def test_a_message_in_a_topic_reads_back_what_was_said(session: FakeSession, commit: Commit) -> None:
    """`Message` keeps headers as pairs; the table keeps them as an object: no name may come twice."""
    commit.state(lamp("a", 7), signer=record_signer(SigningKey.generate()))
    (said,) = commit._said
    message: Message = commit._message(said, part="1/1", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    names = [name for name, _ in message.headers]
    assert len(set(names)) == len(names)
