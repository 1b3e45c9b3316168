"""What goes on for a source: hints are followed once each, and a sweep comes when it must."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from services.sync.domain.feed import Ignored, PathTouched, SourceTouched
from services.sync.domain.hints import LookAt
from services.sync.handlers import keepers as keepers_module
from services.sync.handlers.keepers import Keeper, Keepers, Means, Rhythm
from services.sync.handlers.looks import Looker, Source
from services.sync.handlers.surveys import Surveyor
from shared.errors import BadRequest, SignatureInvalid, Unavailable
from shared.events.catalog import ReferenceState, SourceRecord
from tests.fakes.kv_source import FakeSource
from tests.fakes.sync_books import FakeBooks, a_source
from tests.waiting import until

CALM = Rhythm(sweep_every_s=3600, jitter=0.2, retry_s=3600)


@dataclass
class Bench:
    vault: FakeSource = field(default_factory=FakeSource)
    books: FakeBooks = field(default_factory=FakeBooks)
    rhythm: Rhythm = CALM
    capacity: int = 100
    running: AsyncExitStack = field(default_factory=AsyncExitStack)

    def means(self) -> Means:
        looker = Looker(self.books, asyncio.Semaphore(4))
        return Means(
            books=self.books,
            looker=looker,
            surveyor=Surveyor(self.books, looker),
            surveys=asyncio.Semaphore(2),
            rhythm=self.rhythm,
            hint_capacity=self.capacity,
            workers=3,
        )

    async def keeper(self) -> Keeper:
        """A running keeper that has done its first sweep."""
        record = a_source()
        self.books.connected[record.id] = record
        keeper = Keeper(Source(record, self.vault), self.means())
        await self.running.enter_async_context(task(keeper.run))
        await until(lambda: self.books.sights)
        return keeper

    def version(self, path: str) -> str | None:
        known = self.books.at_path(path)
        return known[None].version if None in known else None


@asynccontextmanager
async def task(work: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.ensure_future(work())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    async with made.running:
        yield made


async def test_a_hint_is_followed(bench: Bench) -> None:
    keeper = await bench.keeper()
    await bench.vault.put("db", {})
    keeper.hear(PathTouched("db"))
    await until(lambda: bench.version("db") == "1")


async def test_what_is_not_for_us_costs_nothing(bench: Bench) -> None:
    keeper = await bench.keeper()
    bench.vault.reads.clear()
    keeper.hear(Ignored())
    keeper.hear(PathTouched("db"))
    await until(lambda: bench.vault.reads)
    assert bench.vault.reads == ["db"]


async def test_a_hundred_hints_for_a_path_that_is_looked_at_are_one_more_look(bench: Bench) -> None:
    keeper = await bench.keeper()
    await bench.vault.put("db", {})
    bench.vault.gate = asyncio.Event()
    bench.vault.reads.clear()
    keeper.hear(PathTouched("db"))
    await until(lambda: bench.vault.reads == ["db"])
    await bench.vault.put("db", {})
    for _ in range(100):
        keeper.hear(PathTouched("db"))
    bench.vault.gate.set()
    await until(lambda: bench.version("db") == "2")
    assert bench.vault.reads == ["db", "db"]


async def test_a_path_that_hangs_does_not_hold_others_up(bench: Bench) -> None:
    keeper = await bench.keeper()
    for path in ("slow", "quick"):
        await bench.vault.put(path, {})
    bench.vault.gate = gate = asyncio.Event()
    keeper.hear(PathTouched("slow"))
    await until(lambda: "slow" in bench.vault.reads)
    bench.vault.gate = None
    keeper.hear(PathTouched("quick"))
    await until(lambda: bench.version("quick") == "1")
    assert bench.version("slow") is None
    gate.set()
    await until(lambda: bench.version("slow") == "1")


async def test_more_hints_than_room_become_a_survey(bench: Bench) -> None:
    bench.capacity = 2
    keeper = await bench.keeper()
    for number in range(20):
        await bench.vault.put(f"many/{number}", {})
        keeper.hear(PathTouched(f"many/{number}"))
    await until(lambda: all(bench.version(f"many/{number}") == "1" for number in range(20)))
    assert len(bench.books.changes) == 20


async def test_a_touched_mount_or_right_is_a_close_survey(bench: Bench) -> None:
    bench.vault.lists_details = True
    await bench.vault.put("db", {})
    keeper = await bench.keeper()
    await until(lambda: bench.version("db") == "1")
    await bench.vault.deny("db")
    keeper.hear(SourceTouched())
    await until(lambda: bench.books.at_path("db")[None].state is ReferenceState.UNREADABLE)


async def test_a_start_begins_with_a_sweep_because_hints_may_have_been_lost(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.keeper()
    assert bench.version("db") == "1"


async def test_a_source_that_was_not_reached_is_swept_again_soon(bench: Bench) -> None:
    bench.rhythm = Rhythm(sweep_every_s=3600, jitter=0, retry_s=0.01)
    bench.vault.down = "sealed"
    await bench.keeper()
    await bench.vault.put("db", {})
    await until(lambda: len(bench.books.sights) > 2)
    bench.vault.down = ""
    await until(lambda: bench.books.sights[-1].reachable)
    assert bench.version("db") == "1"


async def test_a_hint_whose_look_the_database_failed_is_followed_again(bench: Bench) -> None:
    keeper = await bench.keeper()
    await bench.vault.put("db", {})
    kept, failures = bench.books.at, [Unavailable("the database failed")]

    def at(source_id: str, path: str) -> object:
        if failures:
            raise failures.pop()
        return kept(source_id, path)

    bench.books.at = at  # type: ignore[method-assign,assignment]
    keeper.hear(PathTouched("db"))
    await until(lambda: bench.version("db") == "1")


async def test_a_row_that_somebody_else_wrote_ends_one_look_and_no_more(bench: Bench) -> None:
    keeper = await bench.keeper()
    kept = bench.books.at

    def at(source_id: str, path: str) -> object:
        if path == "forged":
            raise SignatureInvalid
        return kept(source_id, path)

    bench.books.at = at  # type: ignore[method-assign,assignment]
    await bench.vault.put("fine", {})
    for path in ("forged", "forged", "fine"):
        keeper.hear(PathTouched(path))
    await until(lambda: bench.version("fine") == "1")


async def test_keepers_follow_what_is_connected(bench: Bench) -> None:
    keepers = Keepers(bench.means(), {"kv2": lambda _name, _place: bench.vault})
    await bench.vault.put("db", {})
    async with task(keepers.run):
        await until(lambda: keepers.trouble is None)
        assert keepers.named("main") is None
        record = a_source()
        bench.books.connected[record.id] = record
        keepers.refresh()
        await until(lambda: bench.version("db") == "1")
        assert keepers.named("main") is not None
        bench.books.connected.clear()
        keepers.refresh()
        await until(lambda: keepers.named("main") is None)


@pytest.mark.parametrize("failures", [0, 1, 2, 5, 5000])
def test_sweeps_are_jittered_and_never_rarer_than_the_interval(failures: int) -> None:
    rhythm = Rhythm(sweep_every_s=30, jitter=0.2, retry_s=2)
    pauses = [rhythm.next_s(failures) for _ in range(200)]
    expected = 30 if not failures else min(30, 2 * 2 ** min(failures - 1, 9))
    assert all(expected * 0.8 <= pause <= expected * 1.2 for pause in pauses)
    assert len(set(pauses)) > 100


SOON = Rhythm(sweep_every_s=3600, jitter=0, retry_s=0.01)


async def test_a_sweep_that_did_not_reach_its_source_is_made_up_for_though_one_before_it_did(bench: Bench) -> None:
    """The last good survey is a moment old, and says nothing of a source that failed since."""
    bench.rhythm, bench.books.survey_age_s = SOON, 0.0
    keeper = await bench.keeper()
    bench.vault.down = "sealed"
    keeper.survey_soon()
    await until(lambda: not bench.books.sights[-1].reachable)
    bench.vault.down = ""
    await until(lambda: bench.books.sights[-1].reachable)


async def test_a_close_look_that_the_database_failed_is_still_owed(bench: Bench) -> None:
    bench.rhythm, bench.vault.lists_details, bench.books.survey_age_s = SOON, True, 0.0
    await bench.vault.put("db", {})
    keeper = await bench.keeper()
    await until(lambda: bench.version("db") == "1")
    await bench.vault.deny("db")
    kept, failures = bench.books.snapshot, [Unavailable("the database failed")]

    async def snapshot(source_id: str) -> object:
        if failures:
            raise failures.pop()
        return await kept(source_id)

    bench.books.snapshot = snapshot  # type: ignore[method-assign,assignment]
    keeper.hear(SourceTouched())
    await until(lambda: bench.books.at_path("db")[None].state is ReferenceState.UNREADABLE)


async def test_a_sweep_that_was_asked_for_is_not_dropped_because_another_replica_sweeps(bench: Bench) -> None:
    """That one may have begun before what the asking was about."""
    bench.rhythm, bench.books.survey_age_s = SOON, 0.0
    keeper = await bench.keeper()
    bench.books.others_survey = True
    await bench.vault.put("db", {})
    keeper.survey_soon()
    await asyncio.sleep(0.02)
    assert bench.version("db") is None
    bench.books.others_survey = False
    await until(lambda: bench.version("db") == "1")


async def test_a_regular_sweep_is_left_to_the_replica_that_just_made_one(bench: Bench) -> None:
    bench.rhythm = Rhythm(sweep_every_s=0.01, jitter=0, retry_s=0.01)
    await bench.keeper()
    bench.books.survey_age_s = 0.0
    sweeps = len(bench.books.sights)
    await asyncio.sleep(0.05)
    assert len(bench.books.sights) <= sweeps + 1
    bench.books.survey_age_s = None
    await until(lambda: len(bench.books.sights) > sweeps + 2)


async def test_a_hint_that_finds_no_room_again_becomes_a_survey(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.capacity = 1
    keeper = Keeper(Source(a_source(), bench.vault), bench.means())
    keeper._wanted.clear()
    keeper.hear(PathTouched("another"))

    def away(*_: object) -> object:
        raise Unavailable("the database failed")

    monkeypatch.setattr(bench.books, "at", away)
    monkeypatch.setattr(keepers_module, "_PAUSE_S", 0)
    await keeper._follow(LookAt(path="db"))
    assert keeper._wanted.is_set()


async def test_a_path_that_can_not_be_read_is_looked_at_again_by_a_survey_of_the_rest(bench: Bench) -> None:
    keeper = await bench.keeper()
    await bench.vault.put("db", {})
    bench.vault.unread.add("odd")
    keeper.hear(PathTouched("odd"))
    await until(lambda: bench.version("db") == "1")
    assert all(sight.reachable for sight in bench.books.sights)


async def test_what_the_feed_said_and_what_came_of_it_is_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers_module, "_FEED_NOTE_S", 0.01)
    keeper = await bench.keeper()
    await bench.vault.put("db", {})
    keeper.hear(PathTouched("db"))
    keeper.hear(Ignored())
    await until(lambda: sum(found for _, found in bench.books.feed_notes) == 1)
    assert sum(heard for heard, _ in bench.books.feed_notes) == 2


async def test_counts_that_the_database_did_not_take_are_told_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers_module, "_FEED_NOTE_S", 0.01)
    keeper = await bench.keeper()
    kept, failures = bench.books.note_feed, [Unavailable("the database failed")]

    async def note_feed(source_id: str, *, messages: int, changed: int) -> None:
        if failures:
            raise failures.pop()
        await kept(source_id, messages=messages, changed=changed)

    monkeypatch.setattr(bench.books, "note_feed", note_feed)
    keeper.hear(Ignored())
    await until(lambda: bench.books.feed_notes == [(1, 0)])


async def test_one_source_that_can_not_be_worked_with_keeps_no_other_from_being_kept(bench: Bench) -> None:
    """As one with plain http, connected in development, when production starts on the same database."""

    def reader(name: str, _: object) -> FakeSource:
        if name == "plain":
            raise BadRequest("Plain http is for development mode only.")
        return bench.vault

    keepers = Keepers(bench.means(), {"kv2": reader})  # type: ignore[dict-item]
    for name in ("plain", "main"):
        bench.books.connected[f"source/{name}"] = a_source(name)
    await bench.vault.put("db", {})
    async with task(keepers.run) as running:
        await until(lambda: bench.version("db") == "1")
        assert keepers.named("plain") is None
        sights = [sight for sight in bench.books.sights if not sight.reachable]
        assert [sight.why for sight in sights] == ["Plain http is for development mode only."]
        keepers.refresh()
        await asyncio.sleep(0.02)
        assert not running.done()
    assert len([sight for sight in bench.books.sights if not sight.reachable]) == 1


async def test_a_database_that_is_away_keeps_what_is_kept_and_shows_in_readiness(bench: Bench) -> None:
    keepers = Keepers(bench.means(), {"kv2": lambda _name, _place: bench.vault})
    bench.books.connected["source/main"] = a_source()
    async with task(keepers.run):
        await until(lambda: keepers.named("main") is not None)
        kept = bench.books.sources

        async def away() -> tuple[SourceRecord, ...]:
            raise Unavailable("the database failed")

        bench.books.sources = away  # type: ignore[method-assign]
        keepers.refresh()
        await until(lambda: keepers.trouble == "the database failed")
        assert keepers.named("main") is not None
        bench.books.sources = kept  # type: ignore[method-assign]
        keepers.refresh()
        await until(lambda: keepers.trouble is None)


async def test_a_mistake_of_ours_in_one_keeper_ends_the_service(bench: Bench) -> None:
    keepers = Keepers(bench.means(), {"kv2": lambda _name, _place: bench.vault})
    bench.books.connected["source/main"] = a_source()

    async def mistake(_: str) -> dict[str, object]:
        raise TypeError("a mistake")

    bench.books.snapshot = mistake  # type: ignore[method-assign,assignment]
    async with task(keepers.run) as running:
        await until(keepers_woken(keepers, running))
        with pytest.raises(ExceptionGroup) as failure:
            await running
    assert failure.group_contains(TypeError)


def keepers_woken(keepers: Keepers, running: asyncio.Task[None]) -> Callable[[], bool]:
    def ended() -> bool:
        keepers.refresh()
        return running.done()

    return ended
