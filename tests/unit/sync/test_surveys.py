"""Surveys: what they find, what they don't conclude, and what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from services.sync.domain.observations import Observation, Unreached
from services.sync.handlers.looks import Looker, Source
from services.sync.handlers.surveys import Surveyed, Surveyor
from services.sync.sources.port import Entry, Reached, Unsuitable
from shared.errors import SignatureInvalid, TooLarge, Unavailable
from shared.events.catalog import ReferenceState
from shared.events.changes import Detection
from tests.fakes.kv_source import FakeSource
from tests.fakes.sync_books import FakeBooks, a_source


@dataclass(slots=True)
class Bench:
    vault: FakeSource = field(default_factory=FakeSource)
    books: FakeBooks = field(default_factory=FakeBooks)
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        record = a_source()
        self.books.connected[record.id] = record
        self.source = Source(record, self.vault)

    async def survey(self, by: Detection = Detection.SWEEP, *, closely: bool = False) -> Surveyed | Unreached:
        surveyor = Surveyor(self.books, Looker(self.books, asyncio.Semaphore(4)))
        return await surveyor.survey(self.source, by, closely=closely)

    def state(self, path: str) -> ReferenceState:
        return self.books.at_path(path)[None].state


@pytest.fixture(params=[False, True], ids=["names-only", "details"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(vault=FakeSource(lists_details=request.param))


async def test_a_survey_finds_everything_and_the_next_one_nothing(bench: Bench) -> None:
    for number in range(100):
        await bench.vault.put(f"many/{number}", {})
    assert await bench.survey() == Surveyed(seen=100, changed=100)
    assert await bench.survey() == Surveyed(seen=100, changed=0)
    assert bench.books.seq == 100


async def test_a_survey_finds_what_no_feed_told(bench: Bench) -> None:
    for path in ("rotated", "deleted", "gone", "same"):
        await bench.vault.put(path, {})
    await bench.survey()
    await bench.vault.put("rotated", {})
    await bench.vault.delete("deleted")
    await bench.vault.forget("gone")
    await bench.vault.put("appeared", {})
    assert await bench.survey() == Surveyed(seen=5, changed=4)
    assert bench.books.told("rotated")[-1] == ("rotated", "2", "active")
    assert bench.state("deleted") is ReferenceState.PENDING_DELETION
    assert bench.state("gone") in {ReferenceState.REMOVED, ReferenceState.RENAMED}
    assert {change.detected_by for change in bench.books.changes} == {Detection.SWEEP}


async def test_an_unreachable_source_changes_no_reference(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.survey()
    bench.vault.down = "sealed"
    assert await bench.survey() == Unreached("sealed")
    assert (bench.books.sights[-1].reachable, bench.books.sights[-1].why) == (False, "sealed")
    assert bench.state("db") is ReferenceState.ACTIVE
    assert bench.books.seq == 1


async def test_a_source_that_goes_down_half_way_has_removed_nothing(bench: Bench) -> None:
    for number in range(20):
        await bench.vault.put(f"many/{number}", {})
    await bench.survey()
    bench.source = Source(bench.source.record, _DiesWhileListing(bench.vault))
    assert isinstance(await bench.survey(), Unreached)
    assert {bench.state(f"many/{number}") for number in range(20)} == {ReferenceState.ACTIVE}


async def test_a_folder_that_is_closed_makes_unreadable_and_not_removed(bench: Bench) -> None:
    await bench.vault.put("ward/db", {})
    await bench.survey()
    await bench.vault.deny("ward/")
    await bench.survey()
    assert bench.state("ward/db") is ReferenceState.UNREADABLE
    assert bench.books.sights[-1].denied_folders == 1


async def test_a_closed_path_that_is_still_listed_shows_to_a_close_look(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.survey()
    await bench.vault.deny("db")
    await bench.survey(closely=True)
    assert bench.state("db") is ReferenceState.UNREADABLE


async def test_a_source_whose_listings_tell_enough_is_not_read_path_by_path() -> None:
    bench = Bench(vault=FakeSource(lists_details=True))
    for number in range(100):
        await bench.vault.put(f"many/{number}", {})
    await bench.survey()
    await bench.vault.put("many/7", {})
    bench.vault.reads.clear()
    assert await bench.survey() == Surveyed(seen=100, changed=1)
    assert bench.vault.reads == ["many/7"]


async def test_a_source_that_went_back_in_time_is_counted_and_left_to_an_operator(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.vault.put("db", {})
    await bench.survey()
    del bench.vault.secrets["db"].versions[1]
    await bench.survey()
    assert bench.books.at_path("db")[None].version == "2"
    assert bench.books.sights[-1].older == 1
    await bench.survey(Detection.MANUAL)
    assert bench.books.at_path("db")[None].version == "1"
    assert bench.books.sights[-1].older == 0


async def test_names_that_can_be_seen_from_now_on_get_references_by_a_manual_sync(bench: Bench) -> None:
    await bench.vault.put("db", {"user": "a"})
    await bench.survey()
    bench.vault.keys_visible = True
    await bench.survey(Detection.MANUAL)
    assert set(bench.books.at_path("db")) == {None, "user"}


async def test_one_path_that_somebody_else_wrote_keeps_no_other_from_being_seen(bench: Bench) -> None:
    for path in ("forged", "fine"):
        await bench.vault.put(path, {})
    open_path = bench.books.at

    def at(source_id: str, path: str) -> object:
        if path == "forged":
            raise SignatureInvalid("reference/1 in the database was not written by sync.")
        return open_path(source_id, path)

    bench.books.at = at  # type: ignore[method-assign,assignment]
    assert await bench.survey() == Surveyed(seen=1, changed=1, refused=1)
    assert "1 paths" in bench.books.sights[-1].why


async def test_one_path_that_can_not_be_read_keeps_no_other_from_being_seen(bench: Bench) -> None:
    """Whoever may write one secret could otherwise hide changes of all others: by writing faster than we read."""
    for path in ("odd", "fine"):
        await bench.vault.put(path, {})
    bench.vault.unread.add("odd")
    assert await bench.survey(closely=True) == Surveyed(seen=1, changed=1, unread=1)
    sight = bench.books.sights[-1]
    assert sight.reachable
    assert "1 paths could not be read" in sight.why
    bench.vault.unread.clear()
    assert await bench.survey(closely=True) == Surveyed(seen=2, changed=1)
    assert bench.books.sights[-1].why == ""


async def test_one_secret_that_no_commit_can_hold_keeps_no_other_from_being_seen(bench: Bench) -> None:
    for path in ("huge", "fine"):
        await bench.vault.put(path, {})
    open_path = bench.books.at

    def at(source_id: str, path: str) -> object:
        if path == "huge":
            raise TooLarge("keyfob.catalog.reference.v1: 600000 bytes, the limit is 524288")
        return open_path(source_id, path)

    bench.books.at = at  # type: ignore[method-assign,assignment]
    assert await bench.survey() == Surveyed(seen=1, changed=1, unread=1)


async def test_a_database_that_is_away_is_told_as_such(bench: Bench) -> None:
    await bench.vault.put("db", {})

    def away(*_: object) -> object:
        raise Unavailable("the database failed")

    bench.books.at = away  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable, match="database"):
        await bench.survey()


@dataclass(slots=True)
class _DiesWhileListing:
    """A source that shows one path and is gone."""

    source: FakeSource

    async def entries(self) -> AsyncIterator[Entry]:
        async for entry in self.source.entries():
            yield entry
            self.source.down = "connection lost"
            yield Unreached("connection lost")
            return

    async def read(self, path: str, *, keys: bool) -> Observation:
        return await self.source.read(path, keys=keys)

    async def check(self) -> Reached | Unsuitable | Unreached:
        return await self.source.check()
