"""A look at one path: what it commits, and that looks never run past each other."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.sync.domain import successors
from services.sync.domain.detection import GONE
from services.sync.domain.observations import Unreached
from services.sync.handlers.looks import Looked, Looker, Source
from shared.events.catalog import ReferenceState
from shared.events.changes import Detection
from tests.fakes.kv_source import FakeSource
from tests.fakes.sync_books import FakeBooks, a_source
from tests.thoroughness import examples
from tests.waiting import until


@dataclass(slots=True)
class Bench:
    """One source and what is known of it."""

    vault: FakeSource = field(default_factory=FakeSource)
    books: FakeBooks = field(default_factory=FakeBooks)
    source: Source = field(init=False)
    looker: Looker = field(init=False)

    def __post_init__(self) -> None:
        record = a_source()
        self.books.connected[record.id] = record
        self.source = Source(record, self.vault)
        self.looker = Looker(self.books, asyncio.Semaphore(10))

    async def look(self, path: str = "db", by: Detection = Detection.FEED) -> Looked | Unreached:
        return await self.looker.look(self.source, path, by)

    def state(self, path: str = "db", key: str | None = None) -> ReferenceState:
        return self.books.at_path(path)[key].state


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def keyed() -> Bench:
    return Bench(vault=FakeSource(keys_visible=True))


async def test_a_new_secret_is_discovered_under_its_path(bench: Bench) -> None:
    await bench.vault.put("hospital-a/db", {"dsn": "x"})
    await bench.look("hospital-a/db")
    record = bench.books.at_path("hospital-a/db")[None]
    assert (record.name, record.version, record.state) == ("hospital-a/db", "1", ReferenceState.ACTIVE)
    assert bench.books.told("hospital-a/db") == [("discovered", "1", "active")]


async def test_looking_again_says_nothing(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look()
    assert await bench.look() == Looked(changes=0, keys_visible=False)
    assert bench.books.seq == 1


async def test_every_name_inside_has_a_reference_where_names_are_seen(keyed: Bench) -> None:
    await keyed.vault.put("db", {"user": "a", "password": "b"})
    await keyed.look()
    assert {record.name for record in keyed.books.at_path("db").values()} == {"db/user", "db/password"}
    assert keyed.books.seq == 1


async def test_a_rotation_rotates_every_name_inside_in_one_commit(keyed: Bench) -> None:
    await keyed.vault.put("db", {"user": "a", "password": "b"})
    await keyed.look()
    await keyed.vault.put("db", {"user": "a", "password": "c"})
    await keyed.look()
    assert [one for one in keyed.books.told("db") if one[0] == "rotated"] == [("rotated", "2", "active")] * 2
    assert keyed.books.seq == 2


async def test_a_name_that_left_the_secret_is_removed_and_comes_back(keyed: Bench) -> None:
    await keyed.vault.put("db", {"user": "a", "password": "b"})
    await keyed.look()
    password = keyed.books.at_path("db")["password"].id
    await keyed.vault.put("db", {"user": "a"})
    await keyed.look()
    assert keyed.state(key="password") is ReferenceState.REMOVED
    assert keyed.state(key="user") is ReferenceState.ACTIVE
    await keyed.vault.put("db", {"user": "a", "password": "b"})
    await keyed.look()
    assert keyed.books.at_path("db")["password"].id == password
    assert keyed.state(key="password") is ReferenceState.ACTIVE


async def test_names_that_can_no_longer_be_seen_are_not_gone(keyed: Bench) -> None:
    await keyed.vault.put("db", {"user": "a"})
    await keyed.look()
    keyed.vault.keys_visible = False
    await keyed.vault.put("db", {"user": "b"})
    await keyed.look()
    assert list(keyed.books.at_path("db")) == ["user"]
    assert keyed.books.told("db")[-1] == ("rotated", "2", "active")


async def test_unreachable_is_never_removed(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look()
    bench.vault.down = "sealed"
    assert await bench.look() == Unreached("sealed")
    assert bench.state() is ReferenceState.ACTIVE
    assert bench.books.seq == 1


async def test_a_closed_path_is_unreadable_until_it_is_opened(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look()
    await bench.vault.deny("db")
    await bench.look()
    bench.vault.denied.clear()
    await bench.look()
    assert [state for _, _, state in bench.books.told("db")] == ["active", "unreadable", "active"]


async def test_a_write_after_a_delete_is_a_rotation_to_something_readable(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look()
    await bench.vault.delete("db")
    await bench.look()
    await bench.vault.put("db", {})
    await bench.look()
    assert bench.books.told("db")[1:] == [("state-changed", "1", "pending-deletion"), ("rotated", "2", "active")]


async def test_an_entry_made_again_with_the_same_version_first_goes_and_then_comes(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look()
    await bench.vault.forget("db")
    await bench.vault.put("db", {})
    await bench.look()
    assert bench.books.told("db")[1:] == [("state-changed", "1", "removed"), ("state-changed", "1", "active")]
    assert [change.seq for change in bench.books.changes] == [1, 2, 3]


async def test_an_older_answer_changes_nothing_unless_an_operator_asks(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.vault.put("db", {})
    await bench.look()
    del bench.vault.secrets["db"].versions[1]
    outcome = await bench.look()
    assert isinstance(outcome, Looked)
    assert outcome.older
    assert bench.books.at_path("db")[None].version == "2"
    await bench.look(by=Detection.MANUAL)
    assert bench.books.told("db")[-1] == ("rotated", "1", "active")


async def test_a_rename_names_the_successor_whichever_half_is_seen_first(bench: Bench) -> None:
    for old, new, first in (("a/db-old", "a/db-new", "new"), ("b/db-old", "b/db-new", "old")):
        await bench.vault.put(old, {})
        await bench.look(old)
        await bench.vault.forget(old)
        await bench.vault.put(new, {})
        for path in (new, old) if first == "new" else (old, new):
            await bench.look(path)
        gone, successor = bench.books.at_path(old)[None], bench.books.at_path(new)[None]
        assert (gone.state, gone.successor_id) == (ReferenceState.RENAMED, successor.id)


async def test_whoever_may_write_many_secrets_can_not_make_a_commit_compare_them_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []
    nearness = successors.nearness

    def counted(path: str, other: str) -> float:
        compared.append((path, other))
        return nearness(path, other)

    monkeypatch.setattr(successors, "nearness", counted)
    old, new = [f"old/{number}/db" for number in range(30)], [f"new/{number}/db" for number in range(30)]
    for path in old:
        await bench.vault.put(path, {})
        await bench.look(path)
        await bench.vault.forget(path)
    # What appeared is seen first, and equally near to all that went: so none is named, and all are compared again.
    for path in (*new, *old, "new/one-more/db"):
        if path not in old:
            await bench.vault.put(path, {})
        compared.clear()
        await bench.look(path)
        assert len(compared) <= successors.MOST


@pytest.mark.parametrize("first", ["new", "old"])
async def test_a_rename_among_paths_that_take_long_to_compare_names_no_successor(bench: Bench, first: str) -> None:
    old, new = "a" * 4000, "a" * 3999
    await bench.vault.put(old, {})
    await bench.look(old)
    await bench.vault.forget(old)
    await bench.vault.put(new, {})
    for path in (new, old) if first == "new" else (old, new):
        await bench.look(path)
    gone = bench.books.at_path(old)[None]
    assert (gone.state, gone.successor_id) == (ReferenceState.REMOVED, None)


async def test_one_that_comes_back_has_no_successor_any_more(bench: Bench) -> None:
    await bench.vault.put("db-old", {})
    await bench.look("db-old")
    await bench.vault.forget("db-old")
    await bench.vault.put("db-new", {})
    await bench.look("db-new")
    await bench.look("db-old")
    await bench.vault.put("db-old", {})
    await bench.look("db-old")
    record = bench.books.at_path("db-old")[None]
    assert (record.state, record.successor_id) == (ReferenceState.ACTIVE, None)


async def test_two_secrets_that_want_one_name_get_two(keyed: Bench) -> None:
    await keyed.vault.put("a", {"b/c": "x"})
    await keyed.vault.put("a/b", {"c": "x"})
    await keyed.vault.put("main/a", {"b/c": "x"})
    for path in ("a", "a/b", "main/a"):
        await keyed.look(path)
    names = {path: keyed.books.at_path(path).popitem()[1].name for path in ("a", "a/b", "main/a")}
    assert names == {"a": "a/b/c", "a/b": "main/a/b/c", "main/a": "main/main/a/b/c"}


async def test_the_later_of_two_hints_reads_later_and_wins(bench: Bench) -> None:
    await bench.vault.put("db", {})
    await bench.look()
    bench.vault.gate = asyncio.Event()
    bench.vault.reads.clear()
    # The first look has read version 1 and its answer is on the way, when version 2 is written and hinted at.
    first = asyncio.create_task(bench.look())
    await until(lambda: len(bench.vault.reads) == 1)
    await bench.vault.put("db", {})
    second = asyncio.create_task(bench.look())
    await asyncio.sleep(0)
    assert len(bench.vault.reads) == 1, "the second look must not read before the first has committed"
    bench.vault.gate.set()
    await asyncio.gather(first, second)
    assert bench.books.at_path("db")[None].version == "2"
    assert bench.books.told("db")[1:] == [("rotated", "2", "active")]


async def test_a_source_that_was_disconnected_is_left_alone(bench: Bench) -> None:
    await bench.vault.put("db", {})
    bench.books.connected.clear()
    assert await bench.look() == Looked()
    assert bench.vault.reads == []


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens to a vault, in whatever order it is looked at: in the end the catalog shows it as it is."""

    paths = ("a", "b/c")

    @initialize(keys_visible=st.booleans())
    def begin(self, keys_visible: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        self.bench = Bench(vault=FakeSource(keys_visible=keys_visible))

    def _do(self, work: object) -> None:
        asyncio.run(work)  # type: ignore[arg-type]

    @rule(path=st.sampled_from(paths), keys=st.sets(st.sampled_from("xyz"), max_size=3))
    def write(self, path: str, keys: set[str]) -> None:
        self._do(self.bench.vault.put(path, dict.fromkeys(keys, "")))

    @rule(path=st.sampled_from(paths), act=st.sampled_from(["delete", "undelete", "destroy", "forget"]))
    def change(self, path: str, act: str) -> None:
        vault, secret = self.bench.vault, self.bench.vault.secrets.get(path)
        if secret is None or not secret.versions:
            return
        newest = (path,) if act in {"delete", "forget"} else (path, len(secret.versions))
        self._do(getattr(vault, act)(*newest))

    @rule(path=st.sampled_from(paths))
    def close_or_open(self, path: str) -> None:
        self.bench.vault.denied ^= {path}

    @rule(path=st.sampled_from(paths))
    def look(self, path: str) -> None:
        async def looks() -> None:
            self.bench.books.paths.clear()
            self.bench.books.counter = asyncio.Lock()
            await Looker(self.bench.books, asyncio.Semaphore(10)).look(self.bench.source, path, Detection.SWEEP)

        self._do(looks())
        self._check(path)

    def _check(self, path: str) -> None:
        vault, references = self.bench.vault, self.bench.books.at_path(path)
        living = {key: one for key, one in references.items() if one.state not in GONE}
        secret = vault.secrets.get(path)
        if path in vault.denied:
            assert all(one.state is ReferenceState.UNREADABLE for one in living.values())
        elif secret is None or secret.versions[-1].destroyed:
            assert not living
        elif secret.versions[-1].deleted_at is not None:
            assert all(one.state is ReferenceState.PENDING_DELETION for one in living.values())
        else:
            expected = set(secret.versions[-1].keys) if vault.keys_visible else {None}
            assert set(living) == expected
            assert {one.version for one in living.values()} <= {str(len(secret.versions))}

    @invariant()
    def what_was_said_is_what_is(self) -> None:
        if not hasattr(self, "bench"):
            return
        books = self.bench.books
        for record in (known.record for known in books.references.values()):
            said = [change for change in books.changes if change.reference_id == record.id]
            assert (said[-1].state, said[-1].version) == (record.state, record.version)
            assert said[0].kind.value == "discovered"
            assert [one.seq for one in said] == sorted({one.seq for one in said})
            for before, after in itertools.pairwise(said):
                assert (after.previous_state, after.previous_version) == (before.state, before.version)
                assert (after.state, after.version) != (before.state, before.version)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=examples(40), stateful_step_count=25, deadline=None)
