"""Manual syncs: done once, by whoever gets to them, and never half done in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio

from services.sync.domain.ports import Run, RunPart
from services.sync.handlers import runs as runs_module
from services.sync.handlers.keepers import Keepers, Means, Rhythm
from services.sync.handlers.looks import Looker
from services.sync.handlers.runs import RunDesk
from services.sync.handlers.surveys import Surveyor
from shared.errors import Unavailable
from tests.fakes.kv_source import FakeSource
from tests.fakes.sync_books import FakeBooks, a_source
from tests.unit.sync.test_keepers import task
from tests.waiting import until


@dataclass(slots=True)
class FakeRuns:
    """Runs in memory; `elsewhere` are those that another replica works on."""

    now: object
    runs: dict[str, Run] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    working_on: set[str] = field(default_factory=set)
    most_at_once: int = 0
    noted: list[tuple[RunPart, ...]] = field(default_factory=list)
    away: int = 0

    async def open(self, sources: Collection[str], *, asked_by: str) -> Run:
        parts = tuple(RunPart(source=source, state="waiting") for source in sources)
        run = Run(
            id=f"sync/{len(self.runs)}",
            state="running" if parts else "done",
            asked_by=asked_by,
            asked_at=self.now,  # type: ignore[arg-type]
            ended_at=None,
            parts=parts,
        )
        self.runs[run.id] = run
        return run

    async def get(self, run_id: str) -> Run | None:
        return self.runs.get(run_id)

    async def unfinished(self) -> tuple[Run, ...]:
        if self.away:
            self.away -= 1
            raise Unavailable("the database failed")
        return tuple(run for run in self.runs.values() if run.state == "running")

    @asynccontextmanager
    async def working(self, run_id: str) -> AsyncIterator[bool]:
        if run_id in self.elsewhere:
            yield False
            return
        self.working_on.add(run_id)
        self.most_at_once = max(self.most_at_once, len(self.working_on))
        try:
            yield True
        finally:
            self.working_on.discard(run_id)

    async def note(self, run_id: str, parts: Iterable[RunPart], *, ended: bool) -> None:
        told = tuple(parts)
        self.noted.append(told)
        state = "running"
        if ended:
            state = "failed" if any(part.state == "failed" for part in told) else "done"
        self.runs[run_id] = replace(self.runs[run_id], parts=told, state=state)


@dataclass
class Bench:
    vault: FakeSource = field(default_factory=FakeSource)
    books: FakeBooks = field(default_factory=FakeBooks)
    runs: FakeRuns = field(init=False)
    desk: RunDesk = field(init=False)

    def __post_init__(self) -> None:
        self.runs = FakeRuns(self.books.now)
        looker = Looker(self.books, asyncio.Semaphore(4))
        means = Means(
            books=self.books,
            looker=looker,
            surveyor=Surveyor(self.books, looker),
            surveys=asyncio.Semaphore(2),
            rhythm=Rhythm(sweep_every_s=3600, jitter=0, retry_s=3600),
            hint_capacity=10,
            workers=1,
        )
        self.keepers = Keepers(means, {"kv2": lambda _name, _place: self.vault})
        self.desk = RunDesk(self.runs, means, self.keepers, at_once=2)

    async def ended(self, run: Run) -> Run:
        await until(lambda: self.runs.runs[run.id].state != "running")
        return self.runs.runs[run.id]


@pytest_asyncio.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """With one source connected and swept, and a desk that works."""
    monkeypatch.setattr(runs_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(runs_module, "_NOTE_S", 0.01)
    monkeypatch.setattr(runs_module, "_AWAIT_S", 0.01)
    made = Bench()
    made.books.connected["source/main"] = a_source()
    async with task(made.keepers.run), task(made.desk.run):
        await until(lambda: made.keepers.named("main") is not None)
        await until(lambda: made.books.sights)
        yield made


async def test_a_sync_finds_what_changed_and_ends(bench: Bench) -> None:
    await bench.vault.put("db", {})
    run = await bench.ended(await bench.desk.ask(["main"], asked_by="ada"))
    assert (run.state, run.asked_by) == ("done", "ada")
    assert run.parts == (RunPart(source="main", state="done", seen=1, changed=1),)


async def test_a_sync_of_nothing_is_done_at_once(bench: Bench) -> None:
    assert (await bench.desk.ask([], asked_by="ada")).state == "done"


async def test_a_source_that_does_not_answer_fails_its_part_and_says_why(bench: Bench) -> None:
    bench.vault.down = "sealed"
    run = await bench.ended(await bench.desk.ask(["main", "gone"], asked_by="ada"))
    assert run.state == "failed"
    assert {part.source: part.why for part in run.parts} == {"main": "sealed", "gone": "the source is not connected"}


async def test_a_sync_that_could_not_read_everything_does_not_pass_for_done(bench: Bench) -> None:
    await bench.vault.put("fine", {})
    await bench.vault.put("odd", {})
    bench.vault.unread.add("odd")
    run = await bench.ended(await bench.desk.ask(["main"], asked_by="ada"))
    (part,) = run.parts
    assert (run.state, part.seen, part.changed, part.why) == ("failed", 1, 1, "1 paths could not be read")


async def test_progress_shows_while_a_sync_runs(bench: Bench) -> None:
    for number in range(3):
        await bench.vault.put(f"{number}", {})
    bench.vault.gate = asyncio.Event()
    bench.vault.reads.clear()
    run = await bench.desk.ask(["main"], asked_by="ada")
    await until(lambda: len(bench.vault.reads) == 3)
    shown = await bench.desk.wait(run.id, within_s=0)
    assert shown is not None
    assert shown.state == "running"
    bench.vault.gate.set()
    bench.vault.gate = None
    assert (await bench.ended(run)).parts[0].seen == 3


async def test_whoever_waits_gets_the_end_or_how_far_it_is_and_nothing_for_what_is_unknown(bench: Bench) -> None:
    assert await bench.desk.wait("sync/none", within_s=5) is None
    bench.vault.gate = asyncio.Event()
    await bench.vault.put("db", {})
    run = await bench.desk.ask(["main"], asked_by="ada")
    early = await bench.desk.wait(run.id, within_s=0.03)
    assert early is not None
    assert early.state == "running"
    waiting = asyncio.create_task(bench.desk.wait(run.id, within_s=5))
    bench.vault.gate.set()
    late = await waiting
    assert late is not None
    assert late.state == "done"


async def test_a_sync_that_a_dead_replica_left_is_taken_up(bench: Bench) -> None:
    run = await bench.runs.open(["main"], asked_by="ada")
    assert (await bench.ended(run)).state == "done"


async def test_a_sync_that_another_replica_works_on_is_left_to_it(bench: Bench) -> None:
    bench.runs.elsewhere.add("sync/0")
    run = await bench.desk.ask(["main"], asked_by="ada")
    other = await bench.ended(await bench.desk.ask(["main"], asked_by="ada"))
    assert other.state == "done"
    assert bench.runs.runs[run.id].state == "running"
    bench.runs.elsewhere.clear()
    assert (await bench.ended(run)).state == "done"


async def test_a_database_that_fails_half_way_leaves_the_sync_to_be_taken_up_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.vault.put("db", {})
    kept, failures = bench.books.at, [Unavailable("the database failed")]

    def at(source_id: str, path: str) -> object:
        if failures:
            raise failures.pop()
        return kept(source_id, path)

    monkeypatch.setattr(bench.books, "at", at)
    run = await bench.ended(await bench.desk.ask(["main"], asked_by="ada"))
    assert (run.state, failures) == ("done", [])


async def test_a_desk_whose_database_is_away_waits_for_it(bench: Bench) -> None:
    bench.runs.away = 3
    assert (await bench.ended(await bench.desk.ask(["main"], asked_by="ada"))).state == "done"


async def test_many_syncs_at_once_hold_few_connections(bench: Bench) -> None:
    """Each that is worked on holds one to the database; looks and the admin API need theirs."""
    asked = [await bench.desk.ask(["main"], asked_by="ada") for _ in range(12)]
    for run in asked:
        assert (await bench.ended(run)).state == "done"
    assert bench.runs.most_at_once == 2


async def test_a_mistake_of_ours_ends_the_service_instead_of_trying_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "_LOOK_S", 0.01)

    async def mistake(*_: object, **__: object) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(FakeRuns, "get", mistake)
    bench = Bench()
    await bench.desk.ask(["main"], asked_by="ada")
    with pytest.raises(TypeError):
        await asyncio.wait_for(bench.desk.run(), 5)
