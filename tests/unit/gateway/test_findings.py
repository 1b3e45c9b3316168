"""Values that showed where they should not: which lease they are told under, and when."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from services.gateway.client.ledger import Ledger
from services.gateway.upstream import Ended
from shared.events.receipts import FindingKind, LeaseEnd
from tests.unit.gateway.hall import SECOND_TOKEN, Hall, MakeHall, claim
from tests.waiting import until

AT = datetime.fromtimestamp(0, UTC)


def told(here: Hall) -> list[tuple[FindingKind, str, int]]:
    return [(one.kind, one.lease_id, one.places) for one in here.instance.ledger.findings(AT)]


async def use(here: Hall, arguments: bytes = b"{}") -> None:
    async with here.seats.call(claim(), arguments):
        pass


async def test_what_a_server_said_in_a_call_is_told_under_the_callers_lease(hall: MakeHall) -> None:
    here = await hall()
    seat = await here.sit()
    here.started[0].redacted = {"DB_URL": 2}
    await use(here)
    assert told(here) == [(FindingKind.REDACTED, seat.holding.lease_ids[0], 2)]


async def test_what_it_says_on_its_way_out_is_told_before_its_lease_is_over(hall: MakeHall) -> None:
    here = await hall()
    seat = await here.sit()
    here.started[0].redacted = {"DB_URL": 1}
    await here.gone(here.started[0])
    assert told(here) == [(FindingKind.REDACTED, seat.holding.lease_ids[0], 1)]


async def test_what_it_says_between_calls_is_told_too(hall: MakeHall) -> None:
    here = await hall()
    await here.sit()
    here.started[0].redacted = {"DB_URL": 1}
    tending = asyncio.create_task(here.seats.tend(idle_s=600, every_s=0))
    await until(lambda: told(here))
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)


async def test_a_guess_is_told_and_the_call_goes_on(hall: MakeHall) -> None:
    here = await hall()
    seat = await here.sit()
    here.started[0].guessable = ("DB_URL",)
    await use(here, b'{"q": "DB_URL"}')
    assert told(here) == [(FindingKind.GUESSED, seat.holding.lease_ids[0], 1)]
    assert here.started[0].done == []
    await use(here, b'{"q": "something else"}')
    assert len(told(here)) == 1


async def test_where_a_guess_ends_the_seat_others_stay_on_the_server(hall: MakeHall) -> None:
    here = await hall()
    here.seats._end_on_guess = True
    await here.sit()
    await here.sit(SECOND_TOKEN)
    here.started[0].guessable = ("DB_URL",)
    with pytest.raises(Ended):
        await use(here, b"DB_URL")
    assert here.started[0].done == [], "the other token's seat is still there"
    assert here.ended() == [LeaseEnd.SESSION]


def test_many_places_under_one_lease_are_one_finding() -> None:
    ledger = Ledger()
    for _ in range(1000):
        ledger.found(FindingKind.REDACTED, {"lease/1": 2})
    ledger.found(FindingKind.GUESSED, {"lease/1": 1})
    assert [(one.kind, one.places) for one in ledger.findings(AT)] == [
        (FindingKind.REDACTED, 2000),
        (FindingKind.GUESSED, 1),
    ]


def test_a_finding_is_told_again_under_its_id_until_it_is_durable_and_never_changes() -> None:
    ledger = Ledger()
    ledger.found(FindingKind.REDACTED, {"lease/1": 2})
    (first,) = ledger.findings(AT)
    ledger.found(FindingKind.REDACTED, {"lease/1": 5})
    again, second = ledger.findings(AT)
    assert again == first
    assert (second.places, second.id != first.id) == (5, True)
    ledger.reported(0, 0, 1)
    assert ledger.findings(AT) == (second,)
