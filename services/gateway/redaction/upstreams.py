"""Redaction of one upstream: everything that it says is searched for the values that it was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from services.gateway.redaction.searching import Patterns
from services.gateway.redaction.streams import Redactor
from services.gateway.redaction.values import Secret, secret_texts
from services.gateway.redaction.writings import Medium, writings


@dataclass(frozen=True, slots=True)
class NoGuess:
    """The arguments hold no value of the server's."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The caller itself supplied these references' values: perhaps tries whether they get redacted. An alarm."""

    references: tuple[str, ...]


class Redaction:
    """What an upstream's values are replaced by, in results and on stderr.

    Keeps the values, in a searchable form, for as long as the server can speak: longer than the upstream itself. So
    `wipe` it when the server is gone, and not before its last words were read.

    `unprotected` names the references whose value is too short to be searched for (`values.SHORTEST`).
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        texts: dict[str, set[bytes]] = {}
        for secret in secrets:
            with secret.value.reveal() as view:
                texts.setdefault(secret.reference, set()).update(secret_texts(bytes(view), secret.marked))
        self.unprotected = tuple(sorted(reference for reference, found in texts.items() if not found))
        self._json = _patterns(texts, Medium.JSON)
        self._text = _patterns(texts, Medium.TEXT)
        self._counts: Counter[str] = Counter()

    def results(self) -> Redactor:
        """For one stream of JSON or of server-sent events that carry JSON."""
        return Redactor(self._json, self._counts)

    def stderr(self) -> Redactor:
        """For one stream of text in no particular format."""
        return Redactor(self._text, self._counts)

    def message(self, line: bytes) -> bytes:
        """One whole JSON text, redacted; valid JSON if it was. The very same object if it holds nothing."""
        return self.results().finish(line)

    def text(self, text: str) -> str:
        """One text that was not part of JSON, redacted: an error's sentence."""
        octets = text.encode(errors="surrogatepass")
        out = self.stderr().finish(octets)
        return text if out == octets else out.decode(errors="replace")

    def examine(self, arguments: bytes) -> NoGuess | Guess:
        """Whether a caller's JSON holds a value of this server's. What to do about it is the gateway's decision."""
        found = {span.reference for span in self._json.find(arguments)}
        return Guess(tuple(sorted(found))) if found else NoGuess()

    def take_counts(self) -> dict[str, int]:
        """Replaced places by reference since the last time."""
        counts = dict(self._counts)
        self._counts.clear()
        return counts

    def wipe(self) -> None:
        """Forget the values, as far as Python can; whoever goes on reading gets `ValueError`."""
        self._json.wipe()
        self._text.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "<Redaction>"


def _patterns(texts: dict[str, set[bytes]], medium: Medium) -> Patterns:
    pairs = ((reference, text) for reference, some in texts.items() for text in some)
    return Patterns((one for reference, text in pairs for one in writings(reference, text, medium)), medium)
