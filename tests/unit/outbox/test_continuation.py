"""A relay goes on only where database and topic belong to one history."""

from __future__ import annotations

import uuid

import pytest

from shared.outbox.continuation import Continue, Counters, Refuse, judge
from shared.outbox.tail import EMPTY, EXPIRED, Tail

OURS, THEIRS = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.mark.parametrize(
    ("tail", "counters", "waiting"),
    [
        (EMPTY, Counters(issued_seq=0, published_seq=0), None),
        (EMPTY, Counters(issued_seq=5, published_seq=0), None),
        (Tail(5, OURS), Counters(issued_seq=9, published_seq=5), None),
        (Tail(5, OURS), Counters(issued_seq=5, published_seq=5), None),
    ],
)
def test_it_goes_on_behind_what_was_published(tail: Tail, counters: Counters, waiting: uuid.UUID | None) -> None:
    assert judge(tail, counters, waiting) == Continue(tail.seq)


def test_what_reached_the_topic_but_was_not_yet_forgotten_here_is_not_published_again() -> None:
    assert judge(Tail(7, OURS), Counters(issued_seq=9, published_seq=5), OURS) == Continue(7)


@pytest.mark.parametrize(
    ("tail", "counters", "waiting", "word"),
    [
        pytest.param(Tail(7, OURS), Counters(issued_seq=6, published_seq=6), None, "issued 6", id="restored"),
        pytest.param(Tail(7, OURS), Counters(issued_seq=9, published_seq=6), THEIRS, "rewound", id="went-on-since"),
        pytest.param(Tail(7, OURS), Counters(issued_seq=9, published_seq=6), None, "rewound", id="not-in-the-outbox"),
        pytest.param(Tail(4, OURS), Counters(issued_seq=9, published_seq=6), None, "behind", id="topic-lost-commits"),
        pytest.param(EMPTY, Counters(issued_seq=9, published_seq=6), None, "behind", id="topic-lost-everything"),
    ],
)
def test_it_refuses_and_says_why(tail: Tail, counters: Counters, waiting: uuid.UUID | None, word: str) -> None:
    verdict = judge(tail, counters, waiting)
    assert isinstance(verdict, Refuse)
    assert word in verdict.reason


def test_a_log_whose_topic_keeps_nothing_for_so_long_goes_on_where_it_was() -> None:
    assert judge(EXPIRED, Counters(issued_seq=9, published_seq=7), None) == Continue(7)
