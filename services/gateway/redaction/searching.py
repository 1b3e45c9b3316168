r"""Finding the writings of many secrets in bytes: a sieve over everything, then anchors, then the whole writing.

In JSON a match begins where a character of a string begins, never inside an escape: in `"one\nowhere-to-go"` there is
a line break and no `nowhere-to-go`, and to replace it would break the text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from services.gateway.redaction.anchors import Hook, anchors_of
from services.gateway.redaction.sieve import Sieve
from services.gateway.redaction.writings import Medium, Piece, Writing

STRIDE: Final = 64 * 1024
NARROW: Final = 2048
"""Bytes in which anchors are looked for one by one; the sieve narrows it down to there."""
START: Final = 3
"""Bytes by which beginnings are told apart quickly."""
ESCAPE: Final = 5
r"""Bytes of `\u00e9` that may stand before a position inside it."""
_BACKSLASH: Final = b"\\"
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """One match: `data[start:end]` is a writing of the value of `reference`."""

    start: int
    end: int
    reference: str


class Patterns:
    """The writings of a set of secrets, ready to be searched for in one medium."""

    def __init__(self, writings: Iterable[Writing], medium: Medium) -> None:
        self._writings = tuple(writings)
        self._medium = medium
        by_reference: dict[str, list[Writing]] = defaultdict(list)
        for writing in self._writings:
            by_reference[writing.reference].append(writing)
        self._anchors = [anchor for some in by_reference.values() for anchor in anchors_of(some)]
        self._sieve = Sieve([anchor.literal for anchor in self._anchors])
        self._overlap = max((len(anchor.literal) for anchor in self._anchors), default=1) - 1
        self._beginnings: defaultdict[bytes, list[Writing]] = defaultdict(list)
        for writing in self._writings:
            for beginning in _beginnings(writing.pieces):
                self._beginnings[beginning].append(writing)
        self._wiped = False
        self.longest = max((writing.longest for writing in self._writings), default=0)
        """Bytes that the longest match can have."""

    def find(self, data: bytes) -> list[Span]:
        """Every match, ordered, overlapping ones too. `ValueError` once the secrets were wiped."""
        # Not the data as it is: whoever reads a server's last words too late must not get them unredacted.
        if self._wiped:
            message = "the secrets to look for were wiped"
            raise ValueError(message)
        spans: set[Span] = set()
        for low, high in self._suspicious(data):
            for anchor in self._anchors:
                at = data.find(anchor.literal, low, high)
                while at >= 0:
                    spans.update(span for hook in anchor.hooks if (span := self._match(hook, data, at)))
                    at = data.find(anchor.literal, at + 1, high)
        return sorted(spans)

    def undecided(self, data: bytes, low: int) -> int:
        """The first position from `low` on where a match may have begun that the next bytes decide about."""
        for at in range(max(low, len(data) - self.longest + 1), len(data)):
            # At nearly every position this is all that happens.
            begun = self._beginnings.get(data[at : at + START])
            if begun and any(_may_begin(writing.pieces, data, at) for writing in begun):
                return at
        return len(data)

    def wipe(self) -> None:
        """Overwrite what can be overwritten, let go of the rest; doing it again changes nothing."""
        self._wiped = True
        for writing in self._writings:
            writing.wipe()
        for anchor in self._anchors:
            anchor.literal[:] = bytes(len(anchor.literal))
        self._writings, self._anchors, self._sieve = (), [], Sieve([])
        self._beginnings.clear()

    def _suspicious(self, data: bytes) -> Iterator[tuple[int, int]]:
        for low in range(0, len(data), STRIDE):
            yield from self._narrowed(data, low, min(len(data), low + STRIDE + self._overlap))

    def _narrowed(self, data: bytes, low: int, high: int) -> Iterator[tuple[int, int]]:
        if not self._sieve.holds_one(data[low:high]):
            return
        if high - low <= NARROW + self._overlap:
            yield low, high
            return
        middle = (low + high) // 2
        yield from self._narrowed(data, low, middle + self._overlap)
        yield from self._narrowed(data, middle, high)

    def _match(self, hook: Hook, data: bytes, at: int) -> Span | None:
        """The longest match around an anchor that was found at `at`."""
        pieces, here = hook.writing.pieces, at - hook.lead
        ends = {here} if here >= 0 else set()
        for piece in pieces[hook.piece :]:
            ends = {end + len(way) for end in ends for way in piece if data[end : end + len(way)] == way}
        starts = {here} if ends else set()
        for piece in reversed(pieces[: hook.piece]):
            ways = [(way, len(way)) for way in piece]
            starts = {s - size for s in starts for way, size in ways if s >= size and data[s - size : s] == way}
        if self._medium is Medium.JSON:
            starts = {start for start in starts if not inside_escape(data, start)}
        return Span(min(starts), max(ends), hook.writing.reference) if starts else None


def inside_escape(data: bytes, at: int) -> bool:
    r"""Whether `at` is inside a JSON escape: behind an odd backslash, or among the digits of `\u00e9`."""
    if _odd_backslashes(data, at):
        return True
    for digits in range(4):
        u = at - digits - 1
        if u > 0 and data[u] == ord("u") and _odd_backslashes(data, u):
            return all(octet in _HEX for octet in data[u + 1 : at])
    return False


def _odd_backslashes(data: bytes, at: int) -> bool:
    first = at
    while first > 0 and data[first - 1] == _BACKSLASH[0]:
        first -= 1
    return (at - first) % 2 == 1


def context_of(data: bytes, at: int) -> bytes:
    """A few bytes that tell `inside_escape` as much about `at` as all of `data[:at]` does."""
    low = max(0, at - ESCAPE)
    return (_BACKSLASH if _odd_backslashes(data, low) else b"") + data[low:at]


def _beginnings(pieces: tuple[Piece, ...]) -> set[bytes]:
    """The first one, two, three bytes of everything that may begin a match."""
    begun = {b""}
    for piece in pieces:
        if all(len(one) >= START for one in begun):
            break
        begun = {one if len(one) >= START else (one + way)[:START] for one in begun for way in piece}
    return {one[:size] for one in begun for size in range(1, START + 1)}


def _may_begin(pieces: tuple[Piece, ...], data: bytes, at: int) -> bool:
    """Whether `data` ends in the middle of a match that began at `at`."""
    reached = {at}
    for piece in pieces:
        onward = set()
        for here in reached:
            for way in piece:
                rest = data[here : here + len(way)]
                if rest == way:
                    onward.add(here + len(way))
                elif here + len(way) > len(data) and way.startswith(rest):
                    return True
        reached = onward
    return False
