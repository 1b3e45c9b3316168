"""Several replicas write down what members proved, at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import make_url

from services.notifier.app import MIGRATIONS, SCHEMA
from services.notifier.domain.convergence import GatewayProgress, Member, MemberKind, Published
from services.notifier.domain.ports import Transaction
from services.notifier.store import transactions
from shared.database import engine_for, migrate, sessions_for
from shared.events.notices import Notice, NoticeKind
from tests.fakes.enrolled import T0
from tests.integration.notifier.conftest import Stage

OFFSET = 100
GATEWAYS = tuple(Member(kind=MemberKind.GATEWAY, id=f"instance/{n}", name=f"gateway-{n}") for n in (1, 2))


@pytest_asyncio.fixture(loop_scope="session")
async def begin(stage: Stage) -> AsyncIterator[Transaction]:
    """Transactions on an empty schema."""
    engine = engine_for(make_url(stage.database_url), schema=SCHEMA)
    await migrate(engine, scripts=MIGRATIONS, schema=SCHEMA)
    yield transactions(sessions_for(engine))
    await engine.dispose()


async def test_of_two_that_settle_the_last_members_at_once_one_closes_the_notice(begin: Transaction) -> None:
    said = Notice(id="notice/1", kind=NoticeKind.ROTATION, cause_id="change/1", catalog_seq=7, at=T0)
    async with begin() as notes:
        await notes.note([Published(notice=said, offset=OFFSET, at=T0, bounds_from=T0, members=GATEWAYS)])
    first, second = (GatewayProgress(member.id, OFFSET, T0) for member in GATEWAYS)

    async def settle_second() -> int:
        async with begin() as notes:
            return await notes.settle([second], ())

    async with begin() as notes:
        assert await notes.settle([first], ()) == 0
        other = asyncio.create_task(settle_second())
        # Time enough to be done before the first commits, if nothing makes it wait.
        await asyncio.wait({other}, timeout=0.5)
    assert await other == 1
    async with begin() as notes:
        noted = await notes.find(said.id)
    assert noted is not None
    assert noted.converged_at == T0
