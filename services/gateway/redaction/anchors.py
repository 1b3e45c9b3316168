"""Where a search takes hold of a writing: a short string that each of its matches contains.

Most writings have a stretch that can be written in one way only. Where there is none (a password of punctuation, or of
letters beyond ASCII), every way to write a few characters is an anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Final

from services.gateway.redaction.writings import Piece, Writing

LONGEST: Final = 12
"""Bytes of an anchor. Longer ones are rarer, and copy more of the value into what can't be wiped."""
SHORTEST: Final = 4
"""Shorter stretches stand everywhere."""
MOST_WAYS: Final = 128
"""Anchors of one writing: enough for two characters of the most ambiguous kind (`/` can be written in ten ways)."""


@dataclass(frozen=True, slots=True, repr=False)
class Hook:
    """An anchor of `writing` begins `lead` bytes after the beginning of its piece number `piece`."""

    writing: Writing
    piece: int
    lead: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class Anchor:
    """A string to look for, and which writings it may belong to."""

    literal: bytearray
    hooks: list[Hook] = field(default_factory=list)


def anchors_of(writings: Iterable[Writing]) -> list[Anchor]:
    """Anchors of all `writings`, as few as possible: what is part of another text shares its anchor with it.

    So a URL is found by its password, and not by a `postgresql` that stands on every second line.
    """
    found: list[Anchor] = []
    for writing in sorted(writings, key=lambda one: one.longest):
        if not _shared(writing, found):
            found += _own(writing)
    return found


def _shared(writing: Writing, anchors: Iterable[Anchor]) -> bool:
    for anchor in anchors:
        for number, run in _runs(writing.pieces):
            if (lead := run.find(anchor.literal)) >= 0:
                anchor.hooks.append(Hook(writing, number, lead))
                return True
    return False


def _own(writing: Writing) -> list[Anchor]:
    number, run = max(_runs(writing.pieces), key=lambda one: len(one[1]), default=(0, bytearray()))
    if len(run) >= SHORTEST:
        # From the end: values begin alike (`sk-live-`, `postgresql`), and end as they like.
        lead = max(0, len(run) - LONGEST)
        return [Anchor(run[lead:], [Hook(writing, number, lead)])]
    first, count = max(_windows(writing.pieces), key=lambda one: _rarity(writing.pieces[one[0] : sum(one)]))
    ways = {b"".join(parts) for parts in product(*writing.pieces[first : first + count])}
    return [Anchor(bytearray(way), [Hook(writing, first)]) for way in sorted(ways)]


def _runs(pieces: tuple[Piece, ...]) -> Iterator[tuple[int, bytearray]]:
    for number, piece in enumerate(pieces):
        if isinstance(piece[0], bytearray):
            yield number, piece[0]


def _windows(pieces: tuple[Piece, ...]) -> Iterator[tuple[int, int]]:
    """Every (first piece, number of pieces) that has few enough ways, and each single piece."""
    for first in range(len(pieces)):
        for count in range(1, len(pieces) - first + 1):
            if count > 1 and prod(map(len, pieces[first : first + count])) > MOST_WAYS:
                break
            yield first, count


def _rarity(pieces: tuple[Piece, ...]) -> tuple[int, int]:
    """What makes a window a good one: its shortest way is long, and it has few ways."""
    return sum(min(map(len, piece)) for piece in pieces), -prod(map(len, pieces))
