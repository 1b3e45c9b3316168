"""What policy does by itself, on the database's clock and on nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.policy import timing
from services.policy.commands import windows
from services.policy.commands.outcomes import create
from services.policy.ledger import PgWork
from services.policy.signing import PolicyKey
from services.policy.timing import Ticker, Windows
from shared.crypto.signing import SigningKey
from shared.errors import SignatureInvalid, Unavailable
from shared.events.changes import PolicyAction
from shared.events.policy import GrantRecord
from tests.fakes.policy_store import FakeCommit, FakeStore
from tests.unit.policy.stories import ADA, NOON, World

HOUR = timedelta(hours=1)


async def test_a_window_that_opens_while_the_work_begins_waits_for_the_next_look() -> None:
    """What is due is asked by the work's own moment: by a later one, a grant would seem due that has not begun."""
    key, store = PolicyKey(SigningKey.generate()), FakeStore()

    def work_at(now: datetime) -> PgWork:
        return PgWork(store, key, now, commit=FakeCommit(1), actor=ADA)  # type: ignore[arg-type]

    making = work_at(NOON - HOUR)
    grant = GrantRecord(
        id="grant/" + "1" * 32, seq=1, revision=1, profile_id="profile/1", reference_id="reference/1", starts_at=NOON
    )
    await create(making, grant)
    await making.write()
    assert await work_at(NOON - timedelta(milliseconds=1)).due_grant() is None
    assert await work_at(NOON).due_grant() == grant


async def test_a_grant_that_has_not_begun_is_never_taken_for_one_that_is_over() -> None:
    """A clock that was set back, or a moment that somebody changed in the database, must not end it."""
    world = World()
    await world.hospital()
    grant = await world.grant(starts_at=NOON + HOUR, ends_at=NOON + 2 * HOUR)
    await world.do(windows.turn, grant)
    assert grant.id in world.ledger.kept
    world.ledger.now = NOON + 2 * HOUR
    await world.do(windows.turn, grant)
    assert grant.id not in world.ledger.kept
    assert world.ledger.events[-1].action is PolicyAction.ENDED


async def test_a_grant_whose_moment_was_moved_is_written_with_its_own_again() -> None:
    world = World()
    await world.hospital()
    grant = await world.grant(starts_at=NOON + HOUR)
    await world.do(windows.turn, grant)
    event = world.ledger.events[-1]
    assert (event.action, event.ended) == (PolicyAction.UPDATED, ())
    assert world.ledger.kept[grant.id].record.revision == 2


class Turning:
    """A ledger with grants that are due, one after the other; `away` while its database is."""

    def __init__(self, *due: GrantRecord) -> None:
        self.world = World()
        self.due = list(due)
        self.away = False
        self.works = 0

    async def is_anything_due(self) -> bool:
        if self.away:
            raise Unavailable
        return bool(self.due)

    @asynccontextmanager
    async def open(self, actor: Any) -> AsyncIterator[Any]:
        if self.away:
            raise Unavailable
        self.works += 1
        async with self.world.ledger.open(actor) as work:
            work.due_grant = self._next  # type: ignore[attr-defined]
            yield work

    async def _next(self) -> GrantRecord | None:
        return self.due.pop(0) if self.due else None


async def test_every_grant_that_is_due_is_turned_in_a_work_of_its_own() -> None:
    world = World()
    await world.hospital()
    grants = [await world.grant(ends_at=NOON + HOUR, field=name) for name in ("A", "B", "C")]
    ledger = Turning(*grants)
    ledger.world = world
    world.ledger.now = NOON + HOUR
    await Windows(ledger, 1.0).once()  # type: ignore[arg-type]
    ended = [event.entity_id for event in world.ledger.events if event.action is PolicyAction.ENDED]
    assert ended == [grant.id for grant in grants]
    assert len({event.seq for event in world.ledger.events}) == len(world.ledger.events)


async def test_a_look_for_windows_takes_no_lock_while_nothing_is_due() -> None:
    ledger = Turning()
    await Windows(ledger, 1.0).once()  # type: ignore[arg-type]
    assert ledger.works == 0


async def test_a_grant_that_another_replica_has_in_hand_is_left_to_it() -> None:
    ledger = Turning()
    ledger.is_anything_due = lambda: asyncio.sleep(0, result=True)  # type: ignore[method-assign]
    await asyncio.wait_for(Windows(ledger, 1.0).once(), 1)  # type: ignore[arg-type]
    assert ledger.works == 1


class Ticking:
    """A ledger that counts ticks."""

    def __init__(self) -> None:
        self.due = True
        self.ticks = 0
        self.failing: Exception | None = None

    @asynccontextmanager
    async def open(self, _: Any) -> AsyncIterator[Any]:
        if self.failing is not None:
            raise self.failing
        yield self

    async def is_tick_due(self, _: float) -> bool:
        return self.due

    def tick(self) -> None:
        self.ticks += 1


async def test_a_replica_that_finds_the_tick_made_makes_none_and_is_ready_all_the_same() -> None:
    ledger = Ticking()
    ticker = Ticker(ledger, 1.0)  # type: ignore[arg-type]
    assert ticker.reason() == "no tick yet"
    ledger.due = False
    await ticker.once()
    assert (ledger.ticks, ticker.reason()) == (0, None)
    ledger.due = True
    await ticker.once()
    assert (ledger.ticks, ticker.reason()) == (1, None)


async def test_ticks_that_stay_away_show_in_readiness() -> None:
    ticker = Ticker(Ticking(), 1.0)  # type: ignore[arg-type]
    await ticker.once()
    assert ticker.seen_at is not None
    ticker.seen_at -= 7
    assert ticker.reason() == "no tick for 7 s"


@pytest.mark.parametrize(
    ("error", "level"), [(Unavailable("away"), "interval-missed"), (SignatureInvalid(), "interval-failed")]
)
async def test_neither_a_database_that_is_away_nor_a_row_that_was_changed_stops_the_ticks(
    monkeypatch: pytest.MonkeyPatch, error: Exception, level: str
) -> None:
    ledger, told, pauses = Ticking(), [], []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        ledger.failing = error if len(pauses) < 3 else None
        if len(pauses) == 5:
            raise asyncio.CancelledError

    monkeypatch.setattr(timing.asyncio, "sleep", sleep)
    for name in ("warning", "critical"):
        monkeypatch.setattr(timing.log, name, lambda event, **_: told.append(event), raising=False)
    with pytest.raises(asyncio.CancelledError):
        await Ticker(ledger, 1.0).run()  # type: ignore[arg-type]
    assert (ledger.ticks, told) == (3, [level, level])
    assert all(0.05 <= pause <= 1.0 for pause in pauses)


async def test_a_mistake_of_ours_ends_the_service_instead_of_hiding() -> None:
    ledger = Ticking()
    ledger.failing = TypeError("a mistake")
    with pytest.raises(TypeError):
        await Ticker(ledger, 1.0).run()  # type: ignore[arg-type]


async def test_a_step_that_takes_longer_than_its_interval_is_followed_by_a_breath(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database that is slow must not be asked without a pause."""
    clock, pauses = iter([0.0, 9.0, 9.0]), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise asyncio.CancelledError

    class Loop:
        def time(self) -> float:
            return next(clock)

    async def step() -> None:
        """Take long."""

    monkeypatch.setattr(timing.asyncio, "sleep", sleep)
    monkeypatch.setattr(timing.asyncio, "get_running_loop", Loop)
    with pytest.raises(asyncio.CancelledError):
        await timing._repeat(step, every_s=1.0, what="x")
    assert pauses == [0.05]
