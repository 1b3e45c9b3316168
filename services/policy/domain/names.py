"""What people may write: names, labels and hosts that read the same in every log, shell and page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from services.policy.domain.kinds import looks_like_id
from shared.errors import BadRequest

LONGEST_NAME: Final = 256
MOST_LABELS: Final = 32
_LABEL: Final = re.compile(r"[A-Za-z0-9_./-]{1,64}")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def is_plain(text: str) -> bool:
    """Whether `text` is 1 to 256 characters without control, format, surrogate and unassigned ones.

    Format characters are out because two names that look the same must be the same (Unicode TR 36).
    """
    return 0 < len(text) <= LONGEST_NAME and not any(unicodedata.category(one).startswith("C") for one in text)


def check_name(name: str, *, of: str) -> None:
    """Refuse a name that can't be told from another or from an id. `of` says whose: `profile`."""
    if not is_plain(name) or name != name.strip():
        raise BadRequest(f"The {of}'s name needs 1 to {LONGEST_NAME} printable characters, without spaces at its ends.")
    if looks_like_id(name):
        raise BadRequest(f"The {of}'s name looks like an id: choose one that can't be taken for one.")


def check_group(group: str) -> None:
    """Refuse a group id that no token could carry."""
    if not is_plain(group):
        raise BadRequest(f"A group needs 1 to {LONGEST_NAME} printable characters, as the provider's tokens name it.")


def check_text(text: str, *, of: str, limit: int = 2000) -> None:
    """Refuse free text that is too long or holds control characters other than line breaks."""
    if len(text) > limit or any(unicodedata.category(one) in {"Cc", "Cs"} and one != "\n" for one in text):
        raise BadRequest(f"The {of} may have {limit} characters and no control characters.")


def check_line(text: str, *, of: str, limit: int = LONGEST_NAME) -> None:
    """Refuse text that is too long or isn't one line of plain characters; empty is fine."""
    if len(text) > limit or any(unicodedata.category(one).startswith("C") for one in text):
        raise BadRequest(f"The {of} may have {limit} printable characters on one line.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that are too many or that can't be compared at a glance."""
    if len(labels) > MOST_LABELS:
        raise BadRequest(f"There may be {MOST_LABELS} labels.")
    if not all(_LABEL.fullmatch(key) and is_plain(value) for key, value in labels.items()):
        raise BadRequest("A label's key has 1 to 64 letters, digits and `_./-`; its value is printable text.")


def check_host(host: str) -> None:
    """Refuse a destination that is not a lower-case host name or IPv4 address without scheme, port and path."""
    if not _HOST.fullmatch(host):
        raise BadRequest("A destination is a host in lower case, such as `mcp.example.org`: no scheme, port or path.")
