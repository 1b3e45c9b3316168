"""Which of agents' MCP sessions stand on which seat: with its last session a value goes too.

Agents of the newest revision have no sessions; what they use ends when nobody has called it for a while.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from services.gateway.seats import SeatKey


class Sessions:
    """Sessions by id, at most `limit`. One that an agent abandons is forgotten when newer ones need its place."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seats: OrderedDict[str, SeatKey] = OrderedDict()
        self._count: Counter[SeatKey] = Counter()

    def __len__(self) -> int:
        """How many are known."""
        return len(self._seats)

    def opened(self, session_id: str, key: SeatKey) -> None:
        """An agent opened a session."""
        self._seats[session_id] = key
        self._count[key] += 1
        # The oldest: an agent that crashed never closes anything.
        if len(self._seats) > self._limit:
            self._forget(next(iter(self._seats)))

    def closed(self, session_id: str) -> SeatKey | None:
        """An agent closed a session; the seat if it was the seat's last."""
        key = self._forget(session_id)
        # Only the last one: others of the same token still use the server.
        return key if key is not None and key not in self._count else None

    def _forget(self, session_id: str) -> SeatKey | None:
        key = self._seats.pop(session_id, None)
        if key is not None:
            self._count[key] -= 1
            if not self._count[key]:
                del self._count[key]
        return key
