"""How references are called when nobody gave them a name, and which names people may give."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import count
from typing import Final

from shared.errors import BadRequest

LONGEST_NAME: Final = 256
LONGEST_TEXT: Final = 2000
LONGEST_PATH: Final = 4096
"""Of a path, and of a name inside a secret. Ten thousand hints may wait in memory, each with its path."""
MOST_KEYS: Final = 500
"""Names inside one secret that get references of their own: they are one commit, which all others wait for."""
_SOURCE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGITS: Final = 8
_UNUSABLE: Final = frozenset({"", ".", ".."})
"""Parts of a path that a URL does not carry unchanged."""


def check_source_name(name: str) -> None:
    """Refuse a name that could not be the name of the files with its credential and its feed's secret."""
    if not is_source_name(name):
        raise BadRequest("A source's name has 1 to 64 letters, digits and `._-`, a letter or digit first.")


def is_source_name(name: str) -> bool:
    """Whether `name` is plain enough to be part of a file's name."""
    return _SOURCE_NAME.fullmatch(name) is not None and not _looks_like_id(f"{name}/")


def check_name(name: str) -> None:
    """Refuse a reference's name that can't be told from another or from an id."""
    if not 0 < len(name) <= LONGEST_NAME or name != name.strip() or not _is_plain(name):
        raise BadRequest(f"A name needs 1 to {LONGEST_NAME} printable characters, without spaces at its ends.")
    if _looks_like_id(name):
        raise BadRequest("The name looks like an id: choose one that can't be taken for one.")


def check_text(text: str, *, of: str) -> None:
    """Refuse free text that is too long or holds control characters other than line breaks."""
    if len(text) > LONGEST_TEXT or not _is_plain(text.replace("\n", " ")):
        raise BadRequest(f"The {of} may have {LONGEST_TEXT} printable characters.")


def is_path(path: str, *, prefix: str = "") -> bool:
    """Whether `path` is one of a secret that can be stored and shown, below `prefix` if there is one."""
    inside = len(path) <= LONGEST_PATH and (not prefix or path.startswith(f"{prefix}/"))
    return inside and _UNUSABLE.isdisjoint(path.split("/")) and not any(_is_control(one) for one in path)


def is_key(key: str) -> bool:
    """Whether `key` can be stored and shown."""
    return 0 < len(key) <= LONGEST_PATH and not any(_is_control(one) for one in key)


def cut_text(text: str) -> str:
    """What a source says about a secret, as far as it can be shown."""
    return "".join(one for one in text[:LONGEST_TEXT] if one == "\n" or _is_plain(one))


def candidates(*, source: str, path: str, key: str | None) -> Iterator[str]:
    """`path/key`, else `source/path/key`, else that with a number: without end."""
    plain = path if key is None else f"{path}/{key}"
    # A path may begin with `reference/`; a name that does could be taken for an id, so it gets its source in front.
    if not _looks_like_id(plain):
        yield _presentable(plain)
    qualified = f"{source}/{plain}"
    yield _presentable(qualified)
    for number in count(2):
        yield _presentable(f"{qualified} ({number})")


def _presentable(name: str) -> str:
    """`name`, or for one that is too long or can't be shown: what can be, and a digest that keeps it apart."""
    shown = "".join(one if _is_plain(one) else "?" for one in name)
    if shown == name == name.strip() and len(name) <= LONGEST_NAME:
        return name
    # Of the whole name, so that two long ones with the same beginning stay apart.
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{shown.strip()[: LONGEST_NAME - _DIGITS - 1]}~{digest}"


def _looks_like_id(name: str) -> bool:
    return name.startswith("reference/")


def _is_control(one: str) -> bool:
    return unicodedata.category(one) in {"Cc", "Cs"}


def _is_plain(text: str) -> bool:
    """No control, format, surrogate or unassigned characters: two names that look the same are the same."""
    return not any(unicodedata.category(one).startswith("C") for one in text)
