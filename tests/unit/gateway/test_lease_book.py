"""Which leases a notice ends, and that what was ended stays ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.client.leases import Floor, Lease, LeaseBook, Moment, Urgency, rests_on_what_ended
from shared.events.notices import Notice
from shared.events.receipts import LeaseEnd
from tests.fakes.installation import revocation, rotation

NOW = Moment(monotonic=100.0, wall=1_000_000.0)
KNOWN = Floor(5, 5)


def lease(
    id_: str = "lease/1",
    *,
    reference: str = "reference/a",
    version: str = "1",
    rests_on: tuple[str, ...] = ("grant/1",),
    decided: Floor = KNOWN,
    left_s: float = 60.0,
) -> Lease:
    return Lease(
        id=id_,
        reference_id=reference,
        version=version,
        rests_on=frozenset(rests_on),
        decided=decided,
        expires_at=NOW.wall + left_s,
        expires_at_monotonic=NOW.monotonic + left_s,
    )


def test_a_lease_that_rests_on_an_ended_record_ends() -> None:
    assert rests_on_what_ended(lease(), revocation("grant/1", seq=6))
    assert not rests_on_what_ended(lease(), revocation("grant/2", seq=6))


def test_a_lease_decided_at_or_after_the_commit_already_knew() -> None:
    assert not rests_on_what_ended(lease(decided=Floor(6, 0)), revocation("grant/1", seq=6))
    assert not rests_on_what_ended(lease(decided=Floor(0, 6)), rotation("reference/a", "2", 6))


def test_knowing_the_other_sequence_is_not_knowing_this_one() -> None:
    assert rests_on_what_ended(lease(decided=Floor(5, 99)), revocation("grant/1", seq=6))
    assert rests_on_what_ended(lease(decided=Floor(99, 5)), rotation("reference/a", "2", 6))


def test_a_superseded_version_ends_and_the_current_one_does_not() -> None:
    assert rests_on_what_ended(lease(version="1"), rotation("reference/a", "2", 6))
    assert not rests_on_what_ended(lease(version="2"), rotation("reference/a", "2", 6))
    assert not rests_on_what_ended(lease(reference="reference/b"), rotation("reference/a", "2", 6))


def test_without_a_current_version_every_lease_of_the_reference_ends() -> None:
    assert rests_on_what_ended(lease(version="2"), rotation("reference/a", None, 6))


def test_a_notice_that_names_no_commit_ends_what_it_matches() -> None:
    bare = revocation("grant/1", seq=6).model_copy(update={"policy_seq": None})
    assert rests_on_what_ended(lease(decided=Floor(99, 99)), bare)


def test_a_rotation_lets_calls_finish_and_a_revocation_does_not() -> None:
    book = LeaseBook()
    book.add([lease("lease/1"), lease("lease/2", rests_on=("grant/2",))])
    (rotated, also) = book.fence(10, rotation("reference/a", "2", 6))
    assert {rotated.urgency, also.urgency} == {Urgency.DRAIN}
    (revoked,) = book.fence(11, revocation("grant/1", seq=6))
    assert (revoked.lease.id, revoked.urgency, revoked.why) == ("lease/1", Urgency.KILL, LeaseEnd.NOTICE)


def test_the_same_notice_again_is_no_news() -> None:
    book = LeaseBook()
    book.add([lease()])
    assert book.fence(10, revocation("grant/1", seq=6))
    assert not book.fence(12, revocation("grant/1", seq=6))


def test_a_lease_is_over_by_either_clock() -> None:
    book = LeaseBook()
    book.add([lease(left_s=60)])
    assert book.usable("lease/1", Moment(NOW.monotonic + 59, NOW.wall + 59))
    assert not book.usable("lease/1", Moment(NOW.monotonic + 60, NOW.wall)), "the wall clock was set back"
    assert not book.usable("lease/1", Moment(NOW.monotonic, NOW.wall + 60)), "the machine was suspended"


def test_what_is_over_by_its_time_is_told_once() -> None:
    book = LeaseBook()
    book.add([lease(left_s=1)])
    later = Moment(NOW.monotonic + 2, NOW.wall + 2)
    assert [one.why for one in book.fence_expired(later)] == [LeaseEnd.EXPIRED]
    assert not book.fence_expired(later)


def test_an_answer_with_an_id_that_is_held_already_adds_nothing() -> None:
    """What nobody holds nobody lets go of: half an answer would hold back every later receipt."""
    book = LeaseBook()
    book.add([lease("lease/1")])
    for brought in ([lease("lease/2"), lease("lease/1")], [lease("lease/3"), lease("lease/3")]):
        with pytest.raises(ValueError, match="twice"):
            book.add(brought)
    assert len(book) == 1
    assert not book.usable("lease/2", NOW)


def test_a_held_lease_holds_back_the_lowest_notice_that_ended_it() -> None:
    book = LeaseBook()
    book.add([lease("lease/1"), lease("lease/2", rests_on=("grant/2",), reference="reference/b")])
    book.fence(10, revocation("grant/1", seq=6))
    book.fence(11, revocation("grant/2", seq=7))
    book.fence(12, revocation("grant/1", seq=8))
    assert book.held_at() == 10
    book.end("lease/1")
    assert book.held_at() == 11
    book.end("lease/2")
    assert book.held_at() is None


def test_a_lease_that_expired_before_its_notice_came_holds_that_notice_back_too() -> None:
    book = LeaseBook()
    book.add([lease(left_s=1)])
    book.fence_expired(Moment(NOW.monotonic + 2, NOW.wall + 2))
    assert book.held_at() is None
    book.fence(10, revocation("grant/1", seq=6))
    assert book.held_at() == 10


IDS = st.sampled_from(["grant/1", "grant/2", "profile/1", "idp/1"])
REFERENCES = st.sampled_from(["reference/a", "reference/b"])
VERSIONS = st.sampled_from(["1", "2", "3"])
SEQS = st.integers(0, 6)


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    return lease(
        f"lease/{draw(st.integers(0, 10**9))}",
        reference=draw(REFERENCES),
        version=draw(VERSIONS),
        rests_on=tuple(draw(st.sets(IDS))),
        decided=Floor(draw(SEQS), draw(SEQS)),
    )


NOTICES = st.one_of(
    st.builds(lambda ended, seq: revocation(*sorted(ended), seq=seq), st.sets(IDS, min_size=1), SEQS),
    st.builds(rotation, REFERENCES, st.one_of(st.none(), VERSIONS), SEQS),
)


@given(st.lists(leases(), unique_by=lambda one: one.id), st.lists(st.one_of(NOTICES, st.just("everything"))))
def test_no_lease_is_usable_after_a_notice_that_ended_it(held: list[Lease], steps: list[Notice | str]) -> None:
    book = LeaseBook()
    book.add(held)
    over: set[str] = set()
    for offset, step in enumerate(steps):
        if isinstance(step, str):
            book.fence_all()
            over |= {one.id for one in held}
        else:
            book.fence(offset, step)
            # The index must find exactly what trying every lease finds.
            over |= {one.id for one in held if rests_on_what_ended(one, step)}
        for one in held:
            assert book.usable(one.id, NOW) == (one.id not in over)


@given(st.lists(leases(), unique_by=lambda one: one.id), st.lists(NOTICES), st.randoms())
def test_everything_that_is_let_go_leaves_nothing_behind(
    held: list[Lease], steps: list[Notice], random: object
) -> None:
    book = LeaseBook()
    book.add(held)
    for offset, step in enumerate(steps):
        book.fence(offset, step)
    for one in held:
        assert book.end(one.id) == one
        assert book.end(one.id) is None
    assert len(book) == 0
    assert book.held_at() is None
    assert not book._resting
