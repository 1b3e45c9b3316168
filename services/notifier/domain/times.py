"""When a message was written, as its producer says: any number, since whoever may write to a topic chooses it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime.max.replace(tzinfo=UTC)


def written_at(timestamp_ms: int) -> datetime:
    """Kafka's milliseconds since 1970 as a time; the nearest one there is for a number that is none."""
    # Clamped rather than refused: one such message would otherwise stop its reader again at each start.
    since = timedelta(milliseconds=min(max(timestamp_ms, 0), (LATEST - EPOCH) // timedelta(milliseconds=1)))
    return EPOCH + since
