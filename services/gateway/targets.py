"""What a request is for: server and context from its path and headers, choices, and whose token it brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from services.gateway.client.resolving import Wanted
from shared.errors import BadRequest, NotAvailable, Unauthenticated

CONTEXT: Final = b"keyfob-context"
CHOICE: Final = b"keyfob-choice"
LONGEST_NAME: Final = 256
MOST_CHOICES: Final = 64
LARGEST_TOKEN: Final = 16 * 1024
FIRST_PRINTABLE: Final = " "
DELETE: Final = "\x7f"

Headers = Iterable[tuple[bytes, bytes]]


def wanted_of(raw_path: bytes, headers: Headers) -> Wanted:
    """Server, context and choices of a request below `/mcp/`.

    `/mcp/{server}` or `/mcp/{server}/{context}`, percent-encoded UTF-8; the context may stand in `Keyfob-Context`
    instead, and where both are given they must agree. `Keyfob-Choice: FIELD=reference-name`, once for each field.
    Raises `NotAvailable` for a path of another form, `BadRequest` for headers that contradict or can't be read.
    """
    pairs = list(headers)
    server, context = _path(raw_path)
    named = {_text(value) for name, value in pairs if name == CONTEXT}
    if context is not None:
        named.add(context)
    # Silently preferring one would give an agent another hospital than it believes to be in.
    if len(named) > 1:
        raise BadRequest("The request names two contexts.")
    choices = [_choice(_text(value)) for name, value in pairs if name == CHOICE]
    if len(choices) > MOST_CHOICES or len({field for field, _ in choices}) != len(choices):
        raise BadRequest("A field is chosen twice, or there are too many choices.")
    return Wanted(server, next(iter(named), None), tuple(sorted(choices)))


def token_of(headers: Headers) -> str:
    """The token of the one `Authorization: Bearer …` header (RFC 6750); `Unauthenticated` without."""
    # Exactly one: of two, a proxy in front may have checked the other.
    found = [value for name, value in headers if name == b"authorization"]
    scheme, _, token = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    if scheme.lower() != b"bearer" or not token.strip() or len(token) > LARGEST_TOKEN or not token.isascii():
        raise Unauthenticated("This needs an access token in the Authorization header.")
    return token.strip().decode()


def _path(raw_path: bytes) -> tuple[str, str | None]:
    """The parts below `/mcp/`. They are split before they are decoded: a name may hold an encoded slash."""
    parts = raw_path.partition(b"?")[0].rstrip(b"/").split(b"/")[2:]
    match parts:
        case [server] if server:
            return _name(unquote_to_bytes(server)), None
        case [server, context] if server and context:
            return _name(unquote_to_bytes(server)), _name(unquote_to_bytes(context))
        case _:
            raise NotAvailable


def _name(raw: bytes) -> str:
    """A name of the path: what can't be one is absent like any other."""
    try:
        return _text(raw)
    except BadRequest:
        raise NotAvailable from None


def _text(raw: bytes) -> str:
    """One line of UTF-8, 1 to 256 characters."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadRequest("A name is not UTF-8.") from None
    if not 0 < len(text) <= LONGEST_NAME or any(one < FIRST_PRINTABLE or one == DELETE for one in text):
        raise BadRequest("A name has 1 to 256 characters and none that control anything.")
    return text


def _choice(text: str) -> tuple[str, str]:
    field, separator, reference = text.partition("=")
    if not separator or not field.strip() or not reference.strip():
        raise BadRequest("A choice looks like FIELD=reference-name.")
    return field.strip(), reference.strip()
