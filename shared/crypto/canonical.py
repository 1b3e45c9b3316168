"""Canonical JSON (RFC 8785): one spelling for one value, so that digests and signatures can be recomputed.

Numbers are IEEE 754 doubles there: integers beyond ±(2^53 - 1) are refused, send them as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import rfc8785

from shared.crypto.framing import frame, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

Json: TypeAlias = "bool | int | float | str | list[Json] | tuple[Json, ...] | Mapping[str, Json] | None"


def canonical(value: Json) -> bytes:
    """`value` as RFC 8785 bytes; `ValueError` for what JSON or the RFC can't express."""
    return rfc8785.dumps(value)


def digest(domain: bytes, value: Json) -> str:
    """SHA-256, in hex, over `frame(domain, canonical(value))`: equal only for equal values of the same kind.

    The domain (`b"keyfob/definition/1"`) keeps digests of different kinds of things apart.
    """
    return sha256(frame(domain, canonical(value))).hex()
