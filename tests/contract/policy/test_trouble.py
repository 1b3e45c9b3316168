"""The ledger on PostgreSQL when something is wrong: away, stuck, or changed behind our back."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from services.dev.platform.ports import free_port
from services.policy import store
from services.policy.app import SCHEMA, SOURCE
from services.policy.domain.kinds import Kind, new_id
from services.policy.ledger import PgLedger
from services.policy.signing import PolicyKey
from services.policy.timing import Ticker
from shared.crypto.signing import SigningKey
from shared.database import engine_for, sessions_for
from shared.errors import SignatureInvalid, Unavailable
from shared.events.changes import Actor, PolicyAction
from shared.events.policy import ProfileRecord
from shared.outbox.commits import CommitLog

ADA = Actor(idp="idp/administrators", subject="ada")


def ledger_on(engine: AsyncEngine, key: SigningKey | None = None) -> PgLedger:
    commits = CommitLog(schema=SCHEMA, source=SOURCE)
    return PgLedger(sessions_for(engine), commits, PolicyKey(key or SigningKey.generate()))


async def create(ledger: PgLedger, name: str) -> ProfileRecord:
    async with ledger.open(ADA) as work:
        record = ProfileRecord(id=new_id(Kind.PROFILE), seq=work.seq, revision=1, name=name)
        work.put(record)
        work.announce(PolicyAction.CREATED, kind=Kind.PROFILE, entity_id=record.id)
    return record


async def test_a_database_that_is_away_is_unavailable_and_nothing_worse() -> None:
    engine = engine_for(make_url(f"postgresql+asyncpg://nobody@127.0.0.1:{free_port()}/none"), schema=SCHEMA)
    ledger = ledger_on(engine)
    with pytest.raises(Unavailable):
        await create(ledger, "x")
    with pytest.raises(Unavailable):
        async with ledger.read():
            raise AssertionError
    with pytest.raises(Unavailable):
        await ledger.is_anything_due()
    ticker = Ticker(ledger, every_s=0.05)
    ticking = asyncio.create_task(ticker.run())
    done, _ = await asyncio.wait({ticking}, timeout=0.2)
    assert not done
    assert ticker.reason() == "no tick yet"
    ticking.cancel()
    await engine.dispose()


async def test_whoever_waits_too_long_for_the_lock_is_told_to_come_again(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_WITHIN_MS", 50)
    ledger = ledger_on(engine)
    async with ledger.open(ADA):
        with pytest.raises(Unavailable):
            await create(ledger, "x")
    await create(ledger, new_id("x").replace("/", "-x"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entities SET payload = payload || convert_to(' ', 'UTF8') WHERE id = '{id}'",
        "UPDATE entities SET id = 'profile/00000000000000000000000000000000' WHERE id = '{id}'",
        "UPDATE entities SET signature = '\\x00' WHERE id = '{id}'",
        "UPDATE entities SET kind = 'server' WHERE id = '{id}'",
    ],
    ids=["content", "id", "signature", "kind"],
)
async def test_a_row_that_somebody_changed_is_never_taken_for_ours(engine: AsyncEngine, change: str) -> None:
    ledger = ledger_on(engine)
    name = new_id("x").replace("/", "-x")
    record = await create(ledger, name)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(change.format(id=record.id))
    async with ledger.read() as reading:
        try:
            found = await reading.find(ProfileRecord, name)
        except SignatureInvalid:
            found = None
        assert found is None
    async with engine.begin() as connection:
        await connection.exec_driver_sql("TRUNCATE entities, links")


async def test_names_that_somebody_swapped_lead_nowhere(engine: AsyncEngine) -> None:
    ledger = ledger_on(engine)
    records = [await create(ledger, new_id("x").replace("/", "-x")) for _ in range(2)]
    swap = "UPDATE entities SET natural_key = '{to}' WHERE natural_key = '{of}'"
    names = [record.name for record in records]
    async with engine.begin() as connection:
        for of, to in ((names[0], "t"), (names[1], names[0]), ("t", names[1])):
            await connection.exec_driver_sql(swap.format(of=of, to=to))
    async with ledger.read() as reading:
        for name in names:
            with pytest.raises(SignatureInvalid):
                await reading.find(ProfileRecord, name)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("TRUNCATE entities, links")


async def test_a_link_that_somebody_added_leads_nowhere(engine: AsyncEngine) -> None:
    ledger = ledger_on(engine)
    record = await create(ledger, new_id("x").replace("/", "-x"))
    async with engine.begin() as connection:
        statement = "INSERT INTO links SELECT id, 'group/stolen' FROM entities WHERE natural_key = '{name}'"
        await connection.exec_driver_sql(statement.format(name=record.name))
    async with ledger.read() as reading:
        with pytest.raises(SignatureInvalid):
            await reading.linked(ProfileRecord, "group/stolen")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("TRUNCATE entities, links")


async def test_a_row_that_another_key_signed_is_never_taken_for_ours(engine: AsyncEngine) -> None:
    name = new_id("x").replace("/", "-x")
    await create(ledger_on(engine), name)
    async with ledger_on(engine).open(ADA) as work:
        with pytest.raises(SignatureInvalid):
            await work.find(ProfileRecord, name)
        with pytest.raises(SignatureInvalid):
            await work.standing(ProfileRecord(id="profile/1", seq=work.seq, revision=1, name=name))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("TRUNCATE entities, links")
