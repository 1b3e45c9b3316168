"""Whatever order, compaction and cutting do: whole commits only, the newest record of a key only, nothing skipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.bus.cloudevents import Message
from shared.projection.changes import Alert, Change, Removed, Upserted, Why
from shared.projection.fold import Fold
from shared.projection.records import registry
from tests.fakes.state_topic import Door, Lamp, committed, lamp, numbered, with_header

KNOWN = registry(Lamp, Door)
NAMES = "abcd"


def fold() -> tuple[Fold, list[Alert]]:
    alerts: list[Alert] = []
    return Fold(KNOWN, alerts.append), alerts


def after(state: dict[str, str], changes: Sequence[Change]) -> dict[str, str]:
    """What a service's snapshot would hold: key → colour."""
    state = dict(state)
    for change in changes:
        match change:
            case Upserted(typed):
                assert isinstance(typed.record, Lamp)
                state[typed.key] = typed.record.colour
            case Removed(key, _, _):
                state.pop(key, None)
    return state


@dataclass(frozen=True)
class Said:
    """What a commit says about one lamp."""

    name: str
    fate: str


commits = st.lists(
    st.lists(
        st.builds(Said, st.sampled_from(NAMES), st.sampled_from(["kept", "deleted", "garbled"])),
        min_size=1,
        max_size=4,
        unique_by=lambda said: said.name,
    ),
    max_size=8,
)


def history(said: list[list[Said]]) -> tuple[list[Message], list[dict[str, str]]]:
    """The messages of these commits, and the naive state after each of them, the empty one first."""
    messages: list[Message] = []
    states: list[dict[str, str]] = [{}]
    for seq, commit in enumerate(said, 1):
        parts = committed(*(lamp(s.name, seq, colour=f"c{seq}", deleted=s.fate == "deleted") for s in commit))
        state = dict(states[-1])
        for part, one in zip(parts, commit, strict=True):
            messages.append(replace(part, value=b"{") if one.fate == "garbled" else part)
            state.pop(f"lamp/{one.name}", None)
            if one.fate == "kept":
                state[f"lamp/{one.name}"] = f"c{seq}"
        states.append(state)
    return numbered(messages), states


def cut_into(messages: list[Message], sizes: list[int]) -> list[list[Message]]:
    """Fetches of these sizes, the rest at the end."""
    fetches = []
    for size in sizes:
        fetches.append(messages[:size])
        messages = messages[size:]
    return [*fetches, messages]


@given(commits, st.lists(st.integers(0, 3), max_size=12))
def test_every_snapshot_is_the_state_after_a_whole_commit(said: list[list[Said]], sizes: list[int]) -> None:
    messages, states = history(said)
    heart, _ = fold()
    state: dict[str, str] = {}
    seen = [0]
    fetches = cut_into(messages, sizes)
    for fetch in fetches:
        state = after(state, heart.feed(fetch, at_end=fetch is fetches[-1]))
        assert state == states[heart.seq]
        seen.append(heart.seq)
    assert all(earlier <= later for earlier, later in pairwise(seen))
    assert heart.seq == len(said)


@given(commits, st.lists(st.integers(0, 3), max_size=12), st.data())
def test_compaction_changes_nothing_in_the_end(said: list[list[Said]], sizes: list[int], data: st.DataObject) -> None:
    messages, states = history(said)
    newest = {message.key: message.offset for message in messages}
    older = [message.offset for message in messages if newest[message.key] != message.offset]
    gone = data.draw(st.sets(st.sampled_from(older))) if older else set()
    heart, _ = fold()
    state: dict[str, str] = {}
    fetches = cut_into([message for message in messages if message.offset not in gone], sizes)
    for fetch in fetches:
        state = after(state, heart.feed(fetch, at_end=fetch is fetches[-1]))
    assert state == states[-1]
    assert heart.seq == len(said)


@given(commits, st.data())
def test_records_that_come_late_bring_nothing_back(said: list[list[Said]], data: st.DataObject) -> None:
    messages, states = history([[s for s in commit if s.fate != "garbled"] or [Said("a", "kept")] for commit in said])
    stray = data.draw(st.lists(st.sampled_from(messages), max_size=4)) if messages else []
    heart, alerts = fold()
    state = after({}, heart.feed(messages, at_end=True))
    assert after(state, heart.feed(numbered(stray, start=len(messages)), at_end=True)) == states[-1]
    assert not alerts


@given(commits)
def test_what_can_not_be_read_is_alerted_every_time(said: list[list[Said]]) -> None:
    messages, _ = history(said)
    heart, alerts = fold()
    heart.feed(messages, at_end=True)
    assert len(alerts) == sum(s.fate == "garbled" for commit in said for s in commit)


def test_a_commit_without_its_end_is_held_back() -> None:
    heart, _ = fold()
    one, two = numbered(committed(lamp("a", 1), lamp("b", 1)))
    assert heart.feed([one], at_end=False) == []
    assert (heart.seq, heart.applied_position(1)) == (0, 0)
    assert len(heart.feed([two], at_end=False)) == 2
    assert (heart.seq, heart.applied_position(2)) == (1, 2)


def test_a_commit_whose_last_part_was_compacted_ends_with_the_next_commit() -> None:
    heart, _ = fold()
    one, _gone = numbered(committed(lamp("a", 1), lamp("b", 1)))
    following = numbered(committed(lamp("b", 2), lamp("c", 2)), start=2)
    assert len(heart.feed([one, following[0]], at_end=False)) == 1
    assert (heart.seq, heart.applied_position(3)) == (1, 2)


def test_a_commit_whose_last_part_was_compacted_ends_with_the_topic() -> None:
    heart, _ = fold()
    one, _gone = numbered(committed(lamp("a", 1), lamp("b", 1)))
    assert len(heart.feed([one], at_end=True)) == 1
    assert heart.seq == 1


def test_a_deleted_key_keeps_its_number() -> None:
    heart, _ = fold()
    heart.feed(numbered(committed(lamp("a", 1))), at_end=True)
    assert heart.feed(numbered(committed(lamp("a", 3, deleted=True)), start=1), at_end=True) == [
        Removed("lamp/a", Lamp.TYPE, Why.DELETED)
    ]
    assert heart.feed(numbered(committed(lamp("a", 2)), start=2), at_end=True) == []
    assert heart.feed(numbered(committed(lamp("a", 4)), start=3), at_end=True)


def test_a_deleted_key_that_was_never_seen_keeps_its_number_too() -> None:
    heart, _ = fold()
    heart.feed(numbered(committed(lamp("a", 3, deleted=True))), at_end=True)
    assert heart.feed(numbered(committed(lamp("a", 2)), start=1), at_end=True) == []


def good() -> Message:
    return committed(lamp("a", 2, colour="red"))[0]


UNREADABLE = {
    "not JSON": replace(good(), value=b"{"),
    "a null": replace(good(), value=b""),
    "an unknown type": with_header(good(), "ce_type", b"keyfob.tests.curtain.v1"),
    "no type": with_header(good(), "ce_type", None),
    "another type's shape": with_header(replace(good(), value=b'{"id":"lamp/a"}'), "ce_type", Door.TYPE.encode()),
    "no CloudEvent": with_header(good(), "ce_specversion", None),
    "another one's id": replace(good(), value=committed(lamp("b", 2))[0].value),
    "no commit": with_header(good(), "ce_commitseq", None),
    "another commit in the header": with_header(good(), "ce_commitseq", b"9"),
    "no part": with_header(good(), "ce_commitpart", None),
    "a part that is no fraction": with_header(good(), "ce_commitpart", b"x"),
}


def test_a_record_that_can_not_be_read_takes_away_what_its_key_held() -> None:
    for why, message in UNREADABLE.items():
        heart, alerts = fold()
        heart.feed(numbered(committed(lamp("a", 1), lamp("b", 1))), at_end=True)
        removed = heart.feed(numbered([message], start=2), at_end=True)
        assert removed == [Removed("lamp/a", Lamp.TYPE, Why.UNREADABLE, message.value)], why
        assert [alert.key for alert in alerts] == ["lamp/a"], why


def test_after_it_only_a_newer_record_counts() -> None:
    heart, _ = fold()
    heart.feed(numbered(committed(lamp("a", 5))), at_end=True)
    heart.feed(numbered([UNREADABLE["not JSON"]], start=1), at_end=True)
    assert heart.feed(numbered(committed(lamp("a", 5)), start=2), at_end=True) == []
    assert heart.feed(numbered(committed(lamp("a", 6)), start=3), at_end=True)


def test_a_record_without_a_key_makes_the_run_untrustworthy() -> None:
    for key in (None, ""):
        heart, alerts = fold()
        assert heart.feed(numbered([replace(good(), key=key)]), at_end=True) == []
        assert heart.keyless
        assert "offset 0" in heart.keyless
        assert [alert.key for alert in alerts] == [None]
