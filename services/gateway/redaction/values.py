"""Which bytes of a credential are secret: the value, a URL's password, the JSON leaves that a definition marks.

Never a URL's user name or host: they stand in half of what a database server says about itself. Nothing shorter than
`SHORTEST` characters: it would be found where it does not stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from shared.crypto.secret import SecretBytes

SHORTEST: Final = 8
"""Characters (bytes where a value is not UTF-8)."""
# RFC 3986, section 3; `jdbc:postgresql://` has a scheme before the scheme.
_URL: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.:-]*://([^/?#]*)@([^/?#@]*)")


@dataclass(frozen=True, slots=True)
class Secret:
    """One value under its reference's name. `marked` are JSON Pointers (RFC 6901) to its secret leaves.

    The value is read when a `Redaction` is made, and stays the caller's to wipe.
    """

    reference: str
    value: SecretBytes
    marked: tuple[str, ...] = ()


def secret_texts(value: bytes, marked: tuple[str, ...] = ()) -> tuple[bytes, ...]:
    """What of `value` may not be shown, longest first, each once; empty when all of it is too short.

    White space around a text is not part of it: who reads a credential from a file drops the last newline.
    """
    leaves = [leaf for pointer in marked for leaf in _leaves(value, pointer)]
    whole = [_stripped(text) for text in (value, *leaves)]
    passwords = [password for text in whole for password in _passwords(text)]
    found = {text for text in (*whole, *passwords) if _characters(text) >= SHORTEST}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _stripped(text: bytes) -> bytes:
    inner = text.strip()
    return inner if _characters(inner) >= SHORTEST else text


def _characters(text: bytes) -> int:
    try:
        return len(text.decode())
    except UnicodeDecodeError:
        return len(text)


def _passwords(text: bytes) -> Iterator[bytes]:
    """The password of a URL, as written and percent-decoded (RFC 3986, section 3.2.1)."""
    url = _URL.match(text)
    if url is None:
        return
    user, separator, password = url[1].partition(b":")
    # postgres:postgres@postgres is a default, and to hide it would hide the name of every such host.
    public = {unquote_to_bytes(user), url[2], url[2].rpartition(b":")[0]}
    if separator and unquote_to_bytes(password) not in public:
        yield password
        yield unquote_to_bytes(password)


def _leaves(value: bytes, pointer: str) -> Iterator[bytes]:
    """The texts below `pointer`; none where the value is not JSON or has no such place."""
    try:
        # Numbers as they are written: 0123.50 is not 123.5 to whoever searches for it.
        node = json.loads(value, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        match node:
            case dict() if key in node:
                node = node[key]
            case list() if key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            case _:
                return
    yield from _texts(node)


def _texts(node: Any) -> Iterator[bytes]:
    match node:
        case str():
            # A lone surrogate may be escaped in JSON, and is no text.
            yield node.encode(errors="surrogatepass")
        case dict():
            for below in node.values():
                yield from _texts(below)
        case list():
            for below in node:
                yield from _texts(below)
        case _:
            return
