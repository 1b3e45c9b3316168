"""Values that are only here to be looked for, and the forms in which each could hide.

A canary is found by its parts too: what was cut, wrapped or quoted in the middle still holds half of it.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import quote

_SPECIAL = '"\\/+%&=<é'
"""What URLs, JSON and forms write in another way; the header canaries do without, as a header could not carry it."""
_SHORTEST = 12
"""Bytes of a part: fewer would stand somewhere by chance."""


@dataclass(frozen=True, slots=True)
class Canary:
    """`secret` is the value as it is used; `parts` are the pieces of it that nobody else may have."""

    label: str
    secret: bytes = field(repr=False)
    parts: tuple[bytes, ...] = field(repr=False)
    servers: frozenset[str] = frozenset()
    """MCP servers that the value is for: it may be in their environment."""
    gateways: frozenset[str] = frozenset()
    """Gateways whose own environment it was put into."""
    recorded: bool = False
    """It was a name that somebody asked for: who asked for which server and context is on record, allowed or not."""
    given: bool = False
    """It was put into the environment of some process by this run, to see what that makes of it."""

    @property
    def text(self) -> str:
        return self.secret.decode()


def forms(value: bytes) -> dict[str, bytes]:
    """How a value could be written, by name of the form."""
    quoted = quote(value, safe="").encode()
    text = value.decode("utf-8", "surrogateescape") if _is_text(value) else value.decode("latin-1")
    found = {
        "plain": value,
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "URL-encoded": quoted,
        "url-encoded": _lower_percents(quoted),
        "JSON-escaped": json.dumps(text)[1:-1].encode(),
        "JSON string": json.dumps(text, ensure_ascii=False)[1:-1].encode(),
    }
    for shift in range(3):
        for name, write in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            padded = write(b"\0" * shift + value)
            # The outer characters depend on the neighbours; those in between stand wherever the value does.
            found[f"{name}+{shift}"] = padded[(shift * 4 + 2) // 3 : len(padded) // 4 * 4 - 4]
    return found


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _lower_percents(quoted: bytes) -> bytes:
    head, *rest = quoted.split(b"%")
    return b"%".join((head, *(part[:2].lower() + part[2:] for part in rest)))


def halves(value: bytes) -> tuple[bytes, ...]:
    """Both halves of a value that is long enough for that."""
    middle = len(value) // 2
    return (value[:middle], value[middle:]) if middle >= _SHORTEST else ()


@dataclass(slots=True)
class Canaries:
    """All canaries of a run, and what to look for."""

    known: dict[str, Canary] = field(default_factory=dict, repr=False)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def new(
        self,
        kind: str,
        *,
        plain: bool = False,
        whole: bool = False,
        servers: Iterable[str] = (),
        gateways: Iterable[str] = (),
        recorded: bool = False,
        given: bool = False,
    ) -> Canary:
        """A random one. `plain`: without the characters that not every place can hold.

        It is looked for by the halves of its random part, which stand in every form of the whole; `whole` adds that.
        """
        core = secrets.token_hex(20).encode()
        secret = core if plain else core + _SPECIAL.encode()
        parts = (*((secret,) if whole else ()), *halves(core))
        return self.add(kind, secret, parts, servers=servers, gateways=gateways, recorded=recorded, given=given)

    def add(
        self,
        kind: str,
        secret: str | bytes,
        parts: Iterable[bytes] = (),
        *,
        servers: Iterable[str] = (),
        gateways: Iterable[str] = (),
        recorded: bool = False,
        given: bool = False,
    ) -> Canary:
        """One that something else has made. Without `parts`: the whole and its halves."""
        raw = secret.encode() if isinstance(secret, str) else secret
        label = f"{kind} #{next(self._numbers)}"
        pieces = tuple(parts) or (raw, *halves(raw))
        self.known[label] = Canary(label, raw, pieces, frozenset(servers), frozenset(gateways), recorded, given)
        return self.known[label]

    def token(self, kind: str, token: str) -> Canary:
        """A JWT: whole, and its signature; header and claims are no secret."""
        signature = token.rpartition(".")[2].encode()
        return self.add(kind, token, (token.encode(), signature, *halves(signature)))

    def key_text(self, kind: str, text: str) -> Canary:
        """A key as `shared.custody.key_text` writes it: behind the fourth hyphen begins what is secret."""
        groups = text.strip().split("-")[-7:]
        joined = "-".join(groups).encode()
        return self.add(kind, text.strip(), (joined, "".join(groups).encode(), *halves(joined)))


@dataclass(frozen=True, slots=True)
class Finding:
    """A canary in a place, by its label and never itself."""

    label: str
    form: str
    place: str

    def __str__(self) -> str:
        return f"{self.label} ({self.form}) in {self.place}"


def needles(canaries: Mapping[str, Canary]) -> dict[bytes, tuple[str, str]]:
    """What to look for → label and form; a form that two parts share counts for the first."""
    wanted: dict[bytes, tuple[str, str]] = {}
    for label, canary in canaries.items():
        for number, part in enumerate(canary.parts):
            for form, needle in forms(part).items():
                wanted.setdefault(needle, (label, f"{form} of part {number}"))
    return wanted


def find(wanted: Mapping[bytes, tuple[str, str]], name: str, content: bytes) -> Iterator[Finding]:
    """Everything that stands in a place."""
    for needle, (label, form) in wanted.items():
        if needle in content:
            yield Finding(label, form, name)
