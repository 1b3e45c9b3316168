r"""How a secret text may be written: the encodings that redaction promises, and no others.

A *form* of the text: plain; hex, all lower or all upper case; base64 or base64url, at each of the three alignments
that it can have inside something longer.

Each *character* of a form then as itself, or as one of

- JSON (RFC 8259, section 7), escaped once or twice (a JSON text inside a JSON string): `\"` `\\` `\/` `\n` …, `\u00e9`
  or `\u00E9`, a surrogate pair beyond the BMP. Letters, digits, blank and `-._` are never escaped by a serialiser.
- percent-encoding (RFC 3986, section 2.1) of its UTF-8 in either case, for all but letters, digits and `-._`; a blank
  also as `+` (application/x-www-form-urlencoded). Any mixture, so every choice of safe characters is covered.

Not among them: other transformations (reversed, compressed, encrypted, split over strings, Base32, quoted-printable,
UTF-16 bytes, hex with separators), base64 broken into lines, percent-encoding twice, letters written as `%41`.
"""

from __future__ import annotations

import base64
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

Piece = tuple[bytes | bytearray, ...]
"""Alternative ways to write one part of a text. A part with a single way is a `bytearray`, so that it can be wiped."""

_NEVER_ENCODED: Final = frozenset(string.ascii_letters + string.digits + "-._")
_SHORT: Final = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_AGAIN: Final = {"\\": ("\\\\",), '"': ('\\"', "\\u0022"), "/": ("/", "\\/")}
"""What a second serialiser makes of what the first one wrote, where that is not the same."""
_SEXTETS: Final = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/").encode()
_SPECIAL_WAYS: Final = {b"+": "+-", b"/": "/_"}
"""In base64 and in base64url (RFC 4648, sections 4 and 5)."""
_SPECIAL: Final = re.compile(rb"([+/])")


class Medium(StrEnum):
    """What is searched. In JSON a text stands in a string: never with a bare quote or backslash."""

    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True, slots=True, repr=False)
class Writing:
    """One form of a secret text: a way for each piece in turn is a match."""

    reference: str
    pieces: tuple[Piece, ...]

    @property
    def longest(self) -> int:
        """The most bytes that it can take."""
        return sum(max(map(len, piece)) for piece in self.pieces)

    def wipe(self) -> None:
        """Overwrite what is secret of it."""
        for piece in self.pieces:
            for way in piece:
                if isinstance(way, bytearray):
                    way[:] = bytes(len(way))


def writings(reference: str, text: bytes, medium: Medium) -> tuple[Writing, ...]:
    """Every form of `text`."""
    # Bytes that are not UTF-8 become lone surrogates, which is also what Python's own serialiser makes of them.
    plain = (_ways(one, medium) for one in text.decode(errors="surrogateescape"))
    in_hex = [text.hex()] if text.hex().isdecimal() else [text.hex(), text.hex().upper()]
    in_base64 = (_base64(text, before, medium) for before in range(3))
    forms = [plain, *([(digits.encode(),)] for digits in in_hex), *in_base64]
    return tuple(Writing(reference, _joined(form)) for form in forms)


@cache
def _ways(character: str, medium: Medium) -> tuple[bytes, ...]:
    """All ways to write one character."""
    once = _escaped(character)
    if character == " ":
        once |= _escaped("+")
    ways = once | {again for way in once for again in _escaped_again(way)}
    if character not in _NEVER_ENCODED:
        ways |= _percent(character)
    if medium is Medium.TEXT:
        ways.add(character)
    return tuple(sorted(way.encode(errors="surrogateescape") for way in ways))


def _escaped(character: str) -> set[str]:
    ways = {character} if character not in '"\\' and character >= " " else set()
    if character in _SHORT:
        ways.add("\\" + _SHORT[character])
    if character not in _NEVER_ENCODED and character != " ":
        units = character.encode("utf-16-be", "surrogatepass")
        code = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
        ways |= {"".join(f"\\u{unit}" for unit in code), "".join(f"\\u{unit.upper()}" for unit in code)}
    return ways


def _escaped_again(way: str) -> set[str]:
    ways = {""}
    for character in way:
        ways = {before + written for before in ways for written in _AGAIN.get(character, (character,))}
    return ways


def _percent(character: str) -> set[str]:
    octets = character.encode(errors="surrogateescape")
    return {"".join(f"%{octet:02x}" for octet in octets), "".join(f"%{octet:02X}" for octet in octets)}


def _base64(text: bytes, before: int, medium: Medium) -> Iterator[tuple[bytes, ...]]:
    """`text` in base64 where `before` octets (0 to 2) of something else share its first group.

    The characters at either end that also carry bits of neighbours count with the bits that are the text's.
    """
    encoded = base64.b64encode(bytes(before) + text)
    first, foreign = divmod(8 * before, 6)
    last, own = divmod(8 * (before + len(text)), 6)
    if foreign:
        low = _SEXTETS.index(encoded[first])
        heads = range(0, 64, 1 << (6 - foreign))
        yield tuple(way for head in heads for way in _sextet(head | low, medium))
    for stretch in _SPECIAL.split(encoded[first + (foreign > 0) : last]):
        yield _sextet(_SEXTETS.index(stretch), medium) if stretch in _SPECIAL_WAYS else (stretch,)
    if own:
        high = _SEXTETS.index(encoded[last])
        yield tuple(way for tail in range(1 << (6 - own)) for way in _sextet(high | tail, medium))


def _sextet(number: int, medium: Medium) -> tuple[bytes, ...]:
    octet = _SEXTETS[number : number + 1]
    return tuple(way for one in _SPECIAL_WAYS.get(octet, ()) for way in _ways(one, medium)) or (octet,)


def _joined(parts: Iterable[tuple[bytes, ...]]) -> tuple[Piece, ...]:
    """Neighbours that have a single way each become one piece."""
    pieces: list[Piece] = []
    run = bytearray()
    for ways in parts:
        if len(ways) == 1:
            run += ways[0]
            continue
        if run:
            pieces.append((run,))
            run = bytearray()
        pieces.append(ways)
    return (*pieces, (run,)) if run else tuple(pieces)
