"""What a commit says because of a finding, and what people's words do to a reference."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sync.domain.commits import Applied, Edit, Moment, apply, edited, forget
from services.sync.domain.detection import (
    GONE,
    Discovered,
    Known,
    Redescribed,
    Renamed,
    Rotated,
    StateChanged,
    detect,
    is_older,
)
from services.sync.domain.observations import Denied, Found, Missing
from shared.events.catalog import ReferenceRecord, ReferenceState
from shared.events.changes import Detection, VaultChangeKind

BORN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MOMENT = Moment(seq=9, at=NOW, detected_by=Detection.FEED)


def found(version: int = 2, **more: object) -> Found:
    given_: dict[str, object] = {
        "path": "ward/db",
        "version": version,
        "born_at": BORN,
        "created_at": BORN + timedelta(hours=version),
        "state": ReferenceState.ACTIVE,
        "since": BORN + timedelta(hours=version, minutes=5),
    }
    return Found(**(given_ | more))  # type: ignore[arg-type]


def known(version: int = 1, **more: object) -> Known:
    record = ReferenceRecord(
        id="reference/1",
        seq=3,
        revision=4,
        name="ward/db",
        source_id="source/1",
        path="ward/db",
        version=str(version),
        changed_at=BORN,
    )
    return Known(record=record.model_copy(update=more), born_at=BORN)


def say(finding: object) -> Applied:
    return apply(finding, MOMENT, name="ward/db/dsn", source_id="source/1")  # type: ignore[arg-type]


def test_a_discovered_reference_begins_with_the_first_revision_and_an_id_that_means_nothing() -> None:
    first, second = say(Discovered(found(), "dsn")), say(Discovered(found(), "dsn"))
    record = first.known.record
    assert (record.name, record.key, record.version, record.revision, record.seq) == ("ward/db/dsn", "dsn", "2", 1, 9)
    assert record.id != second.known.record.id
    assert "ward" not in record.id
    assert first.change is not None
    assert (first.change.kind, first.change.previous_version) == (VaultChangeKind.DISCOVERED, None)


def test_a_rotation_names_both_versions_and_the_provider_s_own_moment() -> None:
    applied = say(Rotated(known(), found()))
    change = applied.change
    assert change is not None
    assert (change.previous_version, change.version) == ("1", "2")
    assert (change.changed_at, change.detected_at) == (found().created_at, NOW)
    assert (applied.known.record.seq, applied.known.record.revision) == (9, 5)


def test_a_path_that_is_no_longer_shown_changed_at_the_latest_when_we_looked() -> None:
    change = say(StateChanged(known(), ReferenceState.REMOVED)).change
    assert change is not None
    assert (change.changed_at, change.version) == (NOW, "1")


def test_a_state_that_the_source_dates_has_its_date() -> None:
    seen = found(1, state=ReferenceState.PENDING_DELETION)
    change = say(StateChanged(known(), ReferenceState.PENDING_DELETION, seen)).change
    assert change is not None
    assert change.changed_at == seen.since


def test_a_rename_names_the_successor_and_keeps_the_version() -> None:
    successor = known().record.model_copy(update={"id": "reference/2"})
    applied = say(Renamed(known(), successor))
    record = applied.known.record
    assert (record.state, record.successor_id, record.version) == (ReferenceState.RENAMED, "reference/2", "1")


def test_what_comes_back_has_no_successor() -> None:
    gone = known(state=ReferenceState.RENAMED, successor_id="reference/2")
    assert say(Rotated(gone, found())).known.record.successor_id is None


def test_words_alone_are_a_record_and_no_event() -> None:
    applied = say(Redescribed(known(), found(1, owner="ada")))
    assert (applied.change, applied.known.record.owner) == (None, "ada")


def test_what_a_person_wrote_the_source_s_own_words_no_longer_change() -> None:
    by_hand = edited(known(), Edit(owner="ward 3"))
    assert by_hand.set_by_admin == {"owner"}
    applied = say(Rotated(by_hand, found(owner="ada", description="new")))
    assert (applied.known.record.owner, applied.known.record.description) == ("ward 3", "new")


def test_a_name_is_a_person_s_and_says_nothing_of_its_words() -> None:
    renamed = edited(known(), Edit(name="db"))
    assert (renamed.record.name, renamed.set_by_admin) == ("db", frozenset())
    assert edited(known(), Edit()) == known()


def test_an_owner_that_a_person_emptied_stays_empty() -> None:
    emptied = edited(known(owner="ada"), Edit(owner=""))
    assert detect([emptied], found(1, owner="ada")) == ()


@pytest.mark.parametrize("state", ReferenceState)
def test_a_disconnected_source_takes_its_references_along_and_tells_of_those_that_lived(state: ReferenceState) -> None:
    applied = forget(known(state=state), MOMENT)
    assert applied.known.record.deleted
    assert (applied.change is None) == (state in GONE)
    if applied.change is not None:
        assert applied.change.state is ReferenceState.REMOVED


states = st.sampled_from([ReferenceState.ACTIVE, ReferenceState.PENDING_DELETION, ReferenceState.REMOVED])
seen_at_all = st.builds(
    found,
    version=st.integers(1, 4),
    state=states,
    keys=st.none() | st.lists(st.sampled_from("xyz"), unique=True, max_size=3).map(tuple),
    owner=st.sampled_from(["", "ada"]),
    born_at=st.sampled_from([BORN, BORN + timedelta(days=1)]),
)
observations = seen_at_all | st.just(Missing("ward/db")) | st.just(Denied("ward/db"))


def settled(references: tuple[Known, ...], seen: Found | Missing | Denied) -> tuple[Known, ...]:
    """The references after every finding of one look was applied."""
    kept = {one.record.id: one for one in references}
    for finding in detect(references, seen):
        applied = apply(finding, MOMENT, name="n", source_id="source/1")
        kept[applied.known.record.id] = applied.known
    return tuple(kept.values())


@given(st.lists(observations, max_size=6))
def test_looking_twice_at_what_does_not_change_tells_nothing_new(history: list[Found | Missing | Denied]) -> None:
    references: tuple[Known, ...] = ()
    for seen in history:
        # What was deleted and made again first goes and then comes: two looks.
        references = settled(settled(references, seen), seen)
        assert detect(references, seen) == ()


@given(st.lists(observations, max_size=6))
def test_a_version_never_goes_back_by_itself(history: list[Found | Missing | Denied]) -> None:
    references: tuple[Known, ...] = ()
    for seen in history:
        before = {one.record.id: one.order for one in references}
        references = settled(references, seen)
        assert all(one.order >= before.get(one.record.id, one.order) for one in references)


@given(st.lists(observations, max_size=6))
def test_one_key_of_one_path_is_one_reference(history: list[Found | Missing | Denied]) -> None:
    references: tuple[Known, ...] = ()
    for seen in history:
        references = settled(references, seen)
        keys = [one.record.key for one in references]
        assert len(keys) == len(set(keys))


def test_an_older_answer_is_one_of_an_earlier_life_or_an_earlier_version() -> None:
    assert is_older([known(2)], found(1))
    assert is_older([replace(known(1), born_at=BORN + timedelta(days=1))], found(9))
    assert not is_older([known(2)], found(2))
    assert not is_older([known(9)], found(1, born_at=BORN + timedelta(days=1)))
    assert not is_older([], found(1))
