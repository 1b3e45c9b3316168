"""Whether any of many short strings stands in a chunk: one pass, yes or no.

The search is the one of Rust's `regex` crate, which pydantic-core brings and keeps. Nearly every chunk is done with
this. Python's `re` is no choice here: it is a hundred times slower for such patterns, and keeps what it compiled, the
values with it, in a cache of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic_core import SchemaValidator, core_schema

MOST_IN_ONE: Final = 500
"""Strings in one compiled pattern, well below the crate's limit of 10 MiB for it."""


class Sieve:
    """Compiled from `literals`, which may hold any bytes. What was compiled can be dropped, not wiped."""

    __slots__ = ("_validators",)

    def __init__(self, literals: Sequence[bytes | bytearray]) -> None:
        groups = (literals[first : first + MOST_IN_ONE] for first in range(0, len(literals), MOST_IN_ONE))
        self._validators = [_compiled(group) for group in groups]

    def holds_one(self, data: bytes) -> bool:
        """Whether one of the strings stands in `data`."""
        # Latin-1: one character an octet, whatever the data is.
        text = data.decode("latin-1")
        return any(validator.isinstance_python(text) for validator in self._validators)


def _compiled(literals: Sequence[bytes | bytearray]) -> SchemaValidator:
    pattern = "|".join("".join(f"\\x{{{octet:02x}}}" for octet in literal) for literal in literals)
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True))
