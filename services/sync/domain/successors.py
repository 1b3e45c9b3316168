"""Which reference took the place of one that vanished. A rename is, to most sources, a new path and a deleted one.

A candidate appeared in the same source shortly before or after, holds the same key, and its path is near. Only a
clear winner is named: a wrong successor is worse than none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from typing import Final

from shared.events.catalog import ReferenceRecord

WINDOW: Final = timedelta(minutes=10)
"""Between the appearance of the one and the disappearance of the other."""

NEAR: Final = 0.5
"""Of 1.0, by `nearness`; two paths with the same last part are near whatever their folders are called."""

MARGIN: Final = 0.1
"""How much nearer than the second the winner must be."""

MOST: Final = 200
"""Pairs that one commit compares, and rows that it reads for them."""

_STEPS: Final = 2_000_000
"""About 0.2 s, by `_steps`."""


@dataclass(frozen=True, slots=True)
class Appeared:
    """A reference, and when it was first seen."""

    record: ReferenceRecord
    at: datetime


def affordable(gone: Iterable[ReferenceRecord], appeared: Iterable[Appeared]) -> bool:
    """Whether all of these can be compared in one commit, which every other commit of sync waits for.

    If not, none is named: whoever may write secrets chooses how many there are and how long their paths take.
    """
    by_key: defaultdict[str | None, list[str]] = defaultdict(list)
    for one in appeared:
        by_key[one.record.key].append(one.record.path)
    steps = 0
    pairs = ((record.path, path) for record in gone for path in by_key.get(record.key, ()))
    for number, (path, other) in enumerate(pairs, start=1):
        steps += _steps(path, other)
        if number > MOST or steps > _STEPS:
            return False
    return True


def likely_successor(gone: ReferenceRecord, gone_at: datetime, appeared: Iterable[Appeared]) -> ReferenceRecord | None:
    """The one reference that very likely goes on where `gone` ended, or None."""
    scored = sorted(
        ((nearness(gone.path, one.record.path), one.record) for one in appeared if _may_follow(gone, gone_at, one)),
        key=lambda pair: pair[0],
        reverse=True,
    )
    # No successor is said rather than a doubtful one: it is where people would point their grants.
    if not scored or scored[0][0] < NEAR:
        return None
    # Two that are equally near say only that we don't know.
    if len(scored) > 1 and scored[0][0] - scored[1][0] < MARGIN:
        return None
    return scored[0][1]


def _may_follow(gone: ReferenceRecord, gone_at: datetime, one: Appeared) -> bool:
    return (
        one.record.source_id == gone.source_id
        and one.record.path != gone.path
        and one.record.key == gone.key
        and abs(one.at - gone_at) <= WINDOW
    )


def nearness(path: str, other: str) -> float:
    """From 0 (nothing in common) to 1 (the same); the last part of a path counts as much as all of it."""
    # People move folders more often than they rename what is in them.
    leaf, other_leaf = path.rpartition("/")[2], other.rpartition("/")[2]
    return (_likeness(path, other) + _likeness(leaf, other_leaf)) / 2


def _steps(path: str, other: str) -> int:
    """At most so many does `nearness` take: up to one pass over both paths for each letter of the shorter."""
    letters = Counter(other)
    return min(len(path), len(other)) * (max(len(path), len(other)) + sum(letters[one] for one in path))


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
