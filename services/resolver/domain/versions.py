"""Comparing versions of a value, which are the provider's own and only text to us."""

from __future__ import annotations


def superseded(read: str, current: str) -> bool:
    """Whether what was read is older than `current`, the version that the catalog knows.

    Decimal versions are compared as numbers: a read may be ahead of the catalog, which hears of a rotation later.
    Others have no order, so anything but the current one counts as older.
    """
    if read == current:
        return False
    # `isdecimal` and not `isdigit`: "²" is a digit that int() refuses.
    if read.isdecimal() and current.isdecimal():
        return int(read) < int(current)
    return True
