"""What instances were told about records: `stream/n/hash`, signed by them with their receipts.

A resolver that is killed can lose the end of its stream, and nothing in the stream itself shows that. The instance that
got an answer names the record that the answer rests on: if that record is nowhere, it was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.audit.domain.entries import Cause, Entry, access_key
from shared import topics
from shared.events.audit import AuditAction
from shared.events.receipts import GatewayReceipt

TAIL_LOST: Final = "stream-tail-lost"
CONTRADICTED: Final = "stream-contradicted"

HASH_DIGITS: Final = 64
NUMBER_DIGITS: Final = 18
"""What a record's number may have, so that it fits a database's integer."""

LONGEST_STREAM: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """An instance was told that record `n` of `stream` has this hash."""

    stream: str
    n: int
    hash: str
    instance_id: str
    at: datetime

    @property
    def key(self) -> str:
        """The record that it speaks of."""
        return access_key(self.stream, self.n)


def echoes_of(receipt: GatewayReceipt) -> list[Echo]:
    """What a receipt echoes; text that is no echo proves nothing and is passed over."""
    found = (_read(text, receipt) for text in receipt.released)
    return [echo for echo in found if echo is not None]


def _read(text: str, receipt: GatewayReceipt) -> Echo | None:
    # From the right: a stream's name holds slashes itself.
    front, _, digest = text.rpartition("/")
    stream, _, number = front.rpartition("/")
    # isdigit() alone takes digits of every script, which int() reads and nobody wrote.
    numeric = number.isascii() and number.isdigit() and len(number) <= NUMBER_DIGITS
    if not numeric or len(digest) != HASH_DIGITS or not 0 < len(stream) <= LONGEST_STREAM or "\0" in text:
        return None
    return Echo(stream=stream, n=int(number), hash=digest, instance_id=receipt.instance_id, at=receipt.at)


@dataclass(frozen=True, slots=True)
class Compared:
    """Echoes whose record is another one, and those whose record is not there, or not yet."""

    contradicted: tuple[Echo, ...]
    missing: tuple[Echo, ...]


def compare(echoes: Iterable[Echo], recorded: Mapping[str, str]) -> Compared:
    """Hold echoes against the hashes of the records that are there, by key."""
    contradicted, missing = [], []
    for echo in echoes:
        found = recorded.get(echo.key)
        if found is None:
            missing.append(echo)
        # Records of before hashes were kept have none: they contradict nothing.
        elif found not in ("", echo.hash):
            contradicted.append(echo)
    return Compared(tuple(contradicted), tuple(missing))


def contradiction(echo: Echo) -> Entry:
    """The alarm: the instance was told of another record than the one that is on record."""
    return _alarm(echo, CONTRADICTED, "is not the one on record")


def loss(echo: Echo) -> Entry:
    """The alarm: the record that the instance was told of is nowhere."""
    return _alarm(echo, TAIL_LOST, "is nowhere")


def _alarm(echo: Echo, reason: str, what: str) -> Entry:
    # Without the instance: that ten instances miss the same record is one loss.
    key = f"{reason}|{echo.key}|{echo.hash}"
    return Entry(
        cause=Cause(topic=topics.RECEIPTS, key=key, id=echo.instance_id, stream=echo.stream, n=echo.n),
        at=echo.at,
        action=AuditAction.ALERT_RAISED,
        decision="critical",
        reason=reason,
        instance_id=echo.instance_id,
        entity_id=echo.stream,
        detail=f"record {echo.n} of {echo.stream}, of which the instance was told, {what}",
    )
