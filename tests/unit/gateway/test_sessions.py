"""With its last session a seat is vacated."""

from __future__ import annotations

from services.gateway.client.resolving import Wanted
from services.gateway.seats import SeatKey
from services.gateway.sessions import Sessions

ONE, TWO = SeatKey(b"1", Wanted("a")), SeatKey(b"2", Wanted("a"))


def test_the_seat_is_named_with_its_last_session_only() -> None:
    sessions = Sessions(10)
    sessions.opened("a", ONE)
    sessions.opened("b", ONE)
    sessions.opened("c", TWO)
    assert sessions.closed("a") is None
    assert sessions.closed("a") is None, "closing again is no news"
    assert sessions.closed("b") == ONE
    assert sessions.closed("c") == TWO
    assert sessions.closed("never opened") is None
    assert len(sessions) == 0


def test_abandoned_sessions_take_up_bounded_room() -> None:
    sessions = Sessions(3)
    for number in range(100):
        sessions.opened(str(number), ONE)
    assert len(sessions) == 3
    assert [sessions.closed(str(number)) for number in (97, 98, 99)] == [None, None, ONE]
