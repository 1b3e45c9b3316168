"""Who may sit where, and what is left when somebody must go: the tables alone, with servers that end by hand."""

from __future__ import annotations

import asyncio

import pytest

from services.gateway.client.resolving import Refused, Wanted
from services.gateway.seats import Claim
from services.gateway.upstream import Ended
from shared.errors import NotAvailable, NotFresh, TokenInvalid, Unavailable
from shared.events.definitions import HeaderField, HttpServer
from shared.events.receipts import LeaseEnd
from tests.fakes.hospitals import TOKEN_A, TOKEN_B, TOKEN_BOTH
from tests.fakes.installation import Installation, Reference
from tests.fakes.upstreams import SESSION
from tests.unit.gateway.hall import SECOND_TOKEN, MakeHall, claim
from tests.waiting import until

GRANT_A = "grant/hospital-a/agent-a"


async def test_a_seat_that_is_good_is_not_resolved_again(hall: MakeHall, installation: Installation) -> None:
    here = await hall()
    assert await here.sit() is await here.sit()
    assert (len(installation.asked), len(here.started)) == (1, 1)


async def test_many_who_come_at_once_wait_for_one_resolve(hall: MakeHall, installation: Installation) -> None:
    here = await hall(by_hand=True)
    coming = [here.sitting_down() for _ in range(5)]
    await until(lambda: here.started)
    here.started[0].open()
    assert len({id(seat) for seat in await asyncio.gather(*coming)}) == 1
    assert (len(installation.asked), len(here.started)) == (1, 1)


async def test_two_tokens_of_one_subject_share_a_server_and_no_seat(hall: MakeHall) -> None:
    here = await hall()
    one, two = await here.sit(), await here.sit(SECOND_TOKEN)
    assert one is not two
    assert one.running is two.running
    assert all(value.wiped for value in two.holding.values.values()), "the server has the value already"
    assert here.open_leases == 2


@pytest.mark.parametrize(
    ("token", "context"), [(TOKEN_B, None), (TOKEN_BOTH, "hospital-a"), (TOKEN_BOTH, "hospital-b")]
)
async def test_subjects_and_contexts_never_share_a_server(hall: MakeHall, token: str, context: str | None) -> None:
    here = await hall()
    mine, theirs = await here.sit(), await here.sit(token, context)
    assert mine.running is not theirs.running


async def test_a_rotation_leads_new_calls_to_a_new_server_while_the_old_one_drains(
    hall: MakeHall, first: Reference
) -> None:
    here = await hall()
    before = await here.sit()
    offset = here.rotate(first)
    after = await here.sit()
    assert after.running is not before.running
    assert here.started[0].done == ["drain"]
    assert here.dropped < offset, "the old value is still there"
    await here.gone(here.started[0])
    assert here.dropped == offset
    assert here.ended() == [LeaseEnd.NOTICE]
    assert len(here.seats) == 1


async def test_a_revocation_kills_the_server_with_the_last_seat(hall: MakeHall) -> None:
    here = await hall()
    await here.sit()
    offset = here.revoke(GRANT_A)
    assert here.started[0].done == ["kill"]
    assert here.dropped < offset
    await here.gone(here.started[0])
    assert (here.dropped, here.open_leases, here.ended()) == (offset, 0, [LeaseEnd.NOTICE])


async def test_a_revocation_kills_what_drains_already(hall: MakeHall, first: Reference) -> None:
    here = await hall()
    await here.sit()
    here.rotate(first)
    offset = here.revoke(GRANT_A)
    assert here.started[0].done == ["drain", "kill"]
    await here.gone(here.started[0])
    assert here.dropped == offset


async def test_where_another_seat_stays_the_server_stays_and_the_leases_of_the_one_are_over_at_once(
    hall: MakeHall,
) -> None:
    here = await hall()
    await here.sit()
    await here.sit(SECOND_TOKEN)
    offset = here.revoke("mapping/second")
    assert here.started[0].done == []
    assert (here.dropped, here.open_leases, here.ended()) == (offset, 1, [LeaseEnd.NOTICE])
    assert (await here.sit()).running.upstream.takes_calls


async def test_a_call_that_runs_on_a_seat_that_ended_is_ended(hall: MakeHall) -> None:
    here = await hall()
    await here.sit(SECOND_TOKEN)
    calling = asyncio.Event()

    async def work() -> None:
        async with here.seats.call(claim()) as session:
            assert session is SESSION
            calling.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await calling.wait()
    here.revoke("grant/somebody-else")
    await asyncio.sleep(0)
    assert not running.done(), "what ends somebody else ends nothing here"
    here.instance._fence_all()
    with pytest.raises(Ended):
        await running
    assert here.started[0].calls == 0


async def test_a_seat_that_ended_while_its_server_started_is_not_used(
    hall: MakeHall, installation: Installation
) -> None:
    """The server goes on for the other token: that it opens says nothing about this one."""
    here = await hall(by_hand=True)
    mine, theirs = here.sitting_down(), here.sitting_down(SECOND_TOKEN)
    await until(lambda: here.open_leases == 2)
    del installation.tokens[SECOND_TOKEN]
    here.revoke("mapping/second")
    here.started[0].open()
    assert (await mine).running.upstream.takes_calls
    with pytest.raises(Refused) as refused:
        await theirs
    assert refused.value.status == 401


async def test_a_server_that_opens_at_the_moment_of_a_rotation_gets_no_new_call(
    hall: MakeHall, first: Reference
) -> None:
    here = await hall(by_hand=True)
    coming = here.sitting_down()
    await until(lambda: here.started)
    here.started[0].open()
    here.rotate(first)
    await until(lambda: len(here.started) == 2)
    here.started[1].open()
    seat = await coming
    assert seat.running.upstream is here.started[1]


async def test_a_server_that_can_not_start_is_tried_once_and_says_why(
    hall: MakeHall, installation: Installation
) -> None:
    here = await hall(by_hand=True)
    coming = here.sitting_down()
    await until(lambda: here.started)
    here.started[0].fail("The MCP server's program is not installed on this gateway.")
    with pytest.raises(Unavailable) as refused:
        await coming
    assert refused.value.detail == "The MCP server's program is not installed on this gateway."
    assert len(installation.asked) == 1, "a release on record for each try would say that somebody had the value"
    assert (here.open_leases, len(here.seats)) == (0, 0)


async def test_what_is_rotated_while_its_server_starts_is_tried_with_the_new_value(
    hall: MakeHall, first: Reference
) -> None:
    here = await hall(by_hand=True)
    coming = here.sitting_down()
    await until(lambda: here.started)
    here.rotate(first)
    here.started[0].gone()
    await until(lambda: len(here.started) == 2)
    here.started[1].open()
    assert (await coming).running.upstream is here.started[1]


async def test_what_changes_every_time_is_refused_in_the_end(hall: MakeHall, first: Reference) -> None:
    here = await hall(by_hand=True)
    coming = here.sitting_down()
    for number in range(3):
        await until(lambda wanted=number + 1: len(here.started) == wanted)
        here.rotate(first, b"%d" % number)
        here.started[number].gone()
    with pytest.raises(Unavailable):
        await coming
    await until(lambda: here.open_leases == 0)


async def test_a_lease_is_renewed_on_the_same_server_before_it_is_over(
    hall: MakeHall, installation: Installation
) -> None:
    here = await hall()
    before = await here.sit()
    installation.clock.forward(installation.lease_s * 0.89)
    assert await here.sit() is before
    installation.clock.forward(installation.lease_s * 0.02)
    installation.lease_s *= 2
    after = await here.sit()
    assert after is not before
    assert after.running is before.running
    assert (here.open_leases, here.ended()) == (1, [LeaseEnd.REPLACED])


async def test_while_no_resolver_answers_a_lease_is_used_to_its_end(hall: MakeHall, installation: Installation) -> None:
    here = await hall()
    seat = await here.sit()
    installation.clock.forward(installation.lease_s * 0.95)
    installation.refuse_all = NotFresh("stale")
    here.instance.resolvers.post = _no_answer
    assert await here.sit() is seat
    installation.clock.forward(installation.lease_s * 0.05)
    with pytest.raises(Unavailable):
        await here.sit()


async def _no_answer(*_: object, **__: object) -> None:
    raise Unavailable("away")


async def test_a_renewal_that_changes_what_is_carried_moves_to_a_new_server(
    hall: MakeHall, installation: Installation, first: Reference
) -> None:
    """Without a notice: the old server may finish what runs on it, and nobody new gets to it."""
    here = await hall()
    await here.sit()
    first.version, first.value = "2", b"newer"
    installation.clock.forward(installation.lease_s * 0.95)
    installation.lease_s *= 2
    after = await here.sit()
    assert after.running.upstream is here.started[1]
    assert here.started[0].done == ["drain"]
    await here.gone(here.started[0])
    assert here.ended() == [LeaseEnd.REPLACED]


async def test_no_more_servers_than_may_run_and_draining_ones_count(hall: MakeHall, first: Reference) -> None:
    here = await hall(limit=1)
    await here.sit()
    with pytest.raises(Unavailable) as full:
        await here.sit(TOKEN_B)
    assert full.value.retry_after_s == 5
    here.rotate(first)
    with pytest.raises(Unavailable):
        await here.sit()
    assert here.open_leases == 1, "what found no room holds nothing"
    await here.gone(here.started[0])
    await here.sit()


async def test_one_uid_is_one_subjects_until_its_last_process_is_gone(
    hall: MakeHall, first: Reference, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever starts beside a process that drains or stops could read its environment all the same."""
    here = await hall(one_subject=True)
    await here.sit()
    await here.sit(SECOND_TOKEN)
    for _ in range(2):
        with pytest.raises(Unavailable, match="no sandbox for local MCP servers"):
            await here.sit(TOKEN_B)
        here.rotate(first)
    await here.gone(here.started[0])
    assert (await here.sit(TOKEN_B)).running.load.caller.subject == "agent-b"
    assert capsys.readouterr().out.count("KEYFOB_GATEWAY_SANDBOX") == 1, "once, however often somebody asks"


async def test_servers_elsewhere_share_no_uid(hall: MakeHall, installation: Installation) -> None:
    field = HeaderField(name="DB_URL", header="Authorization", prefix="Bearer ")
    installation.define("teller", HttpServer(url="https://mcp.test/", fields=(field,)))
    here = await hall(one_subject=True)
    await here.sit()
    await here.sit(TOKEN_B)
    assert len(here.started) == 2


async def test_the_last_session_takes_the_server_along(hall: MakeHall) -> None:
    here = await hall()
    await here.sit()
    await here.sit(SECOND_TOKEN)
    here.seats.vacate(claim().key)
    assert (here.started[0].done, here.open_leases, here.ended()) == ([], 1, [LeaseEnd.SESSION])
    here.seats.vacate(claim(SECOND_TOKEN).key)
    assert here.started[0].done == ["stop"]
    here.seats.vacate(claim().key)
    await here.gone(here.started[0])
    assert here.ended() == [LeaseEnd.SESSION, LeaseEnd.SESSION]


async def test_a_seat_that_is_used_without_sessions_outlives_them(hall: MakeHall, installation: Installation) -> None:
    here = await hall()
    seat = await here.sit()
    seat.stateless = True
    here.seats.vacate(claim().key)
    assert await here.sit() is seat
    installation.clock.forward(installation.lease_s * 0.95)
    installation.lease_s *= 2
    assert (await here.sit()).stateless, "and so does the one that replaces it"


async def test_what_nobody_calls_is_stopped(hall: MakeHall) -> None:
    here = await hall()
    busy, idle = await here.sit(), await here.sit(TOKEN_B)
    here.started[1].idle_for = 601
    tending = asyncio.create_task(here.seats.tend(idle_s=600, every_s=0))
    try:
        await until(lambda: here.started[1].done)
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
    assert (here.started[0].done, here.started[1].done) == ([], ["stop"])
    assert busy.running.upstream.takes_calls
    assert idle.running.why is LeaseEnd.SESSION


async def test_who_a_token_is_is_asked_once_and_forgotten_when_it_expires(
    hall: MakeHall, installation: Installation
) -> None:
    here = await hall()
    assert (await here.seats.caller(claim())).subject == "agent-a"
    here.seats.vacate(claim().key)
    assert (await here.seats.caller(claim())).subject == "agent-a"
    assert len(installation.asked) == 1
    digest = claim().key.token_digest
    here.seats._callers[digest] = (here.seats._callers[digest][0], 0.0)
    await here.gone(here.started[0])
    installation.refuse_all = TokenInvalid("expired")
    with pytest.raises(Refused):
        await here.seats.caller(claim())


async def test_a_token_that_is_refused_is_nobodys_from_then_on(hall: MakeHall, installation: Installation) -> None:
    here = await hall()
    await here.sit()
    installation.clock.forward(installation.lease_s * 0.95)
    installation.refuse_all = TokenInvalid("revoked")
    with pytest.raises(Refused):
        await here.sit()
    with pytest.raises(Refused):
        await here.seats.caller(claim())


async def test_a_refusal_of_something_else_forgets_nobody(hall: MakeHall, installation: Installation) -> None:
    here = await hall()
    await here.sit()
    installation.refuse_all = NotAvailable()
    with pytest.raises(Refused):
        await here.seats.seat(Claim(TOKEN_A, Wanted("no-such-server")))
    assert (await here.seats.caller(claim())).subject == "agent-a"


async def test_closing_waits_for_all_and_gives_up_in_the_end(hall: MakeHall) -> None:
    here = await hall()
    await here.sit()
    await here.sit(TOKEN_B)
    here.started[0].gone()
    await here.seats.close(within_s=0.05)
    assert [upstream.done for upstream in here.started] == [["stop"], ["stop"]]
    assert (len(here.seats), here.open_leases) == (0, 0)


def test_a_claim_shows_no_token() -> None:
    assert "secret" not in f"{claim('secret')!r}{claim('secret').key!r}"
    assert claim("one").key != claim("two").key
    assert claim("one", "a").key != claim("one", "b").key
