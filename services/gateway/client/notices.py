"""The whole of `notices`, from the position captured at start: decoded, ticks verified, nothing skipped.

What can't be read is not passed over in silence: a notice that says nothing readable ends everything, since it may
have meant any lease.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from shared import topics
from shared.bus.cloudevents import Message, Unreadable, decode, parse
from shared.bus.signatures import record_verifies
from shared.bus.whole_topic import Batch, Read, Restarted
from shared.crypto.signing import VerifyKey
from shared.events.notices import Notice, NoticeTick
from shared.events.policy import TickRecord

TICK_ID: Final = "tick"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """A notice, at its offset, with the trace it belongs to."""

    offset: int
    notice: Notice
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Ticked:
    """Policy's own signed word that this is how things stood at `signed_at` (seconds since 1970)."""

    offset: int
    seq: int
    signed_at: float


@dataclass(frozen=True, slots=True)
class Passed:
    """Nothing to act on up to here: a kind of message that this instance does not know, or a forged tick."""

    offset: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The order has a hole, or a notice can't be read: everything that is held must go. `offset` was the last."""

    offset: int
    reason: str


Happening = Heard | Ticked | Passed | Lost


class Reader(Protocol):
    """The port: a reader of the whole topic, `shared.bus.whole_topic.WholeTopicReader` or a fake."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read now, or None."""
        ...

    async def open(self) -> int:
        """Capture the position: everything from it on will be read."""
        ...

    def __aiter__(self) -> AsyncIterator[Read]:
        """All that follows, for ever."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""


async def happenings(reader: Reader, policy_key: VerifyKey) -> AsyncIterator[Happening]:
    """What follows the captured position, in the order of the topic."""
    async for read in reader:
        match read:
            case Restarted(reason, position):
                yield Lost(position - 1, reason)
            case Batch(messages, position, _):
                for message in messages:
                    yield interpret(message, policy_key)
                # Markers of transactions take offsets too.
                yield Passed(position - 1)


def interpret(message: Message, policy_key: VerifyKey) -> Happening:
    """What one message means to an instance; never raises."""
    try:
        if message.type == Notice.TYPE:
            return Heard(message.offset, decode(message, Notice), message.header("traceparent"))
        if message.type == NoticeTick.TYPE:
            return _tick(message, policy_key)
    # Our own writer of a newer version, or somebody else's rubbish: both look the same, and only one is harmless.
    except Unreadable as error:
        _log.error("notice unreadable", offset=message.offset, reason=error.detail)
        return Lost(message.offset, "a notice could not be read")
    return Passed(message.offset)


def _tick(message: Message, policy_key: VerifyKey) -> Happening:
    """A tick counts only with policy's own signature: the notifier and the broker can't make one."""
    try:
        passed_on = decode(message, NoticeTick)
        signed = record_verifies(
            policy_key,
            passed_on.signature,
            topic=topics.POLICY,
            type_=TickRecord.TYPE,
            key=TICK_ID,
            payload=passed_on.payload,
        )
        record = parse(passed_on.payload, TickRecord) if signed else None
    except Unreadable:
        record = None
    if record is None:
        _log.error("tick refused", offset=message.offset)
        return Passed(message.offset)
    return Ticked(message.offset, record.seq, record.at.timestamp())
