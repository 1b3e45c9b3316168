"""Redacting a stream: what may leave leaves at once, what may be the beginning of a value waits for the next bytes."""

from __future__ import annotations

from collections import Counter
from typing import Final

from services.gateway.redaction.searching import Patterns, context_of

REPLACEMENT: Final = b"[redacted]"
"""Stands for a value, however long it was; valid in a JSON string, and itself shorter than two secrets' least."""


class Redactor:
    """One stream of bytes, from its beginning to its end. Not for use by several threads.

    The result depends on the bytes alone, not on how they were cut. `counts` gets one for each place that was
    replaced and each reference whose value stood there; values that overlap are one place.
    """

    def __init__(self, patterns: Patterns, counts: Counter[str]) -> None:
        self._patterns = patterns
        self._counts = counts
        # What has left already and still says whether the rest begins inside an escape, then the rest.
        self._context = b""
        self._held = b""
        # Bytes from the beginning of `_held` that belong to a place that was replaced, and whose value stood there.
        self._covered = 0
        self._place: set[str] = set()

    @property
    def held(self) -> int:
        """How many bytes wait: always fewer than the longest writing of a value has."""
        return len(self._held)

    def feed(self, chunk: bytes) -> bytes:
        """Take `chunk`; what may leave now."""
        return self._advance(chunk, final=False)

    def finish(self, last: bytes = b"") -> bytes:
        """Take the `last` chunk; the rest of the stream. Afterwards another stream may begin."""
        rest = self._advance(last, final=True)
        self._context = b""
        return rest

    def _advance(self, chunk: bytes, *, final: bool) -> bytes:
        data = self._context + self._held + chunk
        base = len(self._context)
        until = len(data) if final else self._patterns.undecided(data, base)
        out, end = [], base + self._covered
        for span in self._patterns.find(data):
            # Before `base` was decided earlier; from `until` on more bytes may still change the answer.
            if not base <= span.start < until:
                continue
            if span.start >= end:
                out += [data[end : span.start], REPLACEMENT]
                self._place = set()
            end = max(end, span.end)
            if span.reference not in self._place:
                self._place.add(span.reference)
                self._counts[span.reference] += 1
        out.append(data[end:until])
        self._covered = max(0, end - until)
        self._held, self._context = data[until:], context_of(data, until)
        return b"".join(out)
