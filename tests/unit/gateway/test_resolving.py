"""Several addresses, one deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest

from services.gateway.client.leases import Floor
from services.gateway.client.posting import Posted
from services.gateway.client.resolving import Refused, Resolvers, Wanted
from shared.errors import AssertionInvalid, KeyfobError, NotAvailable, NotFresh, Unavailable
from shared.problems import problem_body
from tests.fakes.agent_side import teller
from tests.fakes.installation import RESOLVER, Allowed, Installation, Reference

FIRST, SECOND = "http://first.test", "http://second.test"


def refusal(error: KeyfobError) -> Posted:
    return Posted(error.status, {"content-type": "application/problem+json"}, problem_body(error))


class Addresses:
    """What each address does: an answer, or a failure."""

    def __init__(self, **does: Callable[[], Posted]) -> None:
        self.does = {FIRST: does["first"], SECOND: does["second"]}
        self.asked: list[str] = []

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        address = url.removesuffix("/v1/resolve")
        self.asked.append(address)
        return self.does[address]()


def away() -> Posted:
    raise Unavailable("no answer")


def asking(post: Addresses, deadline_s: float = 0.3) -> Resolvers:
    return Resolvers([FIRST, SECOND], Installation().identity, post, deadline_s=deadline_s)


async def test_a_refusal_that_would_be_the_same_everywhere_ends_the_question() -> None:
    post = Addresses(first=lambda: refusal(NotAvailable()), second=away)
    with pytest.raises(Refused) as refused:
        await asking(post).ask("token", Wanted("server"), Floor())
    assert refused.value.body == problem_body(NotAvailable())
    assert post.asked == [FIRST]


async def test_a_resolver_that_is_away_is_passed_over() -> None:
    post = Addresses(first=away, second=lambda: refusal(NotAvailable()))
    with pytest.raises(Refused):
        await asking(post).ask("token", Wanted("server"), Floor())
    assert post.asked == [FIRST, SECOND]


async def test_a_resolver_that_is_not_fresh_is_passed_over_and_its_words_are_kept() -> None:
    post = Addresses(first=lambda: refusal(NotFresh("stale")), second=away)
    started = time.monotonic()
    with pytest.raises(Refused) as refused:
        await asking(post).ask("token", Wanted("server"), Floor())
    assert refused.value.status == 503
    assert time.monotonic() - started < 2
    assert len(post.asked) > 2, "it is tried again until the deadline"


async def test_an_instance_that_is_not_accepted_says_so_without_blaming_the_agent() -> None:
    post = Addresses(first=lambda: refusal(AssertionInvalid()), second=lambda: refusal(AssertionInvalid()))
    with pytest.raises(Unavailable):
        await asking(post).ask("token", Wanted("server"), Floor())


@pytest.mark.parametrize("error", [AssertionInvalid(), NotFresh()], ids=["not accepted", "not fresh"])
async def test_each_round_waits_twice_as_long_as_the_last_so_that_refusals_stay_few(error: KeyfobError) -> None:
    post = Addresses(first=lambda: refusal(error), second=lambda: refusal(error))
    passed, pauses = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        pauses.append(round(seconds, 3))

    resolvers = Resolvers([FIRST, SECOND], Installation().identity, post, clock=lambda: passed, sleep=sleep)
    with pytest.raises((Refused, Unavailable)):
        await resolvers.ask("token", Wanted("server"), Floor())
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1]
    assert len(post.asked) == 2 * (len(pauses) + 1)


@pytest.mark.parametrize(
    "answer", [Posted(200, {}, b"nonsense"), Posted(404, {}, b"<html>"), Posted(302, {}, b"{}"), Posted(404, {}, b"[]")]
)
async def test_an_answer_that_makes_no_sense_is_no_answer(answer: Posted) -> None:
    post = Addresses(first=lambda: answer, second=away)
    with pytest.raises(Unavailable):
        await asking(post).ask("token", Wanted("server"), Floor())


async def test_the_address_that_answered_is_asked_first_next_time() -> None:
    installation = Installation()
    installation.define("teller", teller())
    installation.tokens["token"] = Allowed("a", {"c": {"DB_URL": Reference("reference/a", b"value")}})
    asked: list[str] = []

    async def post(url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Posted:
        asked.append(url)
        if url.startswith(FIRST):
            return away()
        return await installation.post(url, headers=headers, body=body, timeout_s=timeout_s)

    resolvers = Resolvers([FIRST, RESOLVER], installation.identity, post)
    await resolvers.ask("token", Wanted("teller"), Floor())
    await resolvers.ask("token", Wanted("teller"), Floor())
    assert [url.removesuffix("/v1/resolve") for url in asked] == [FIRST, RESOLVER, RESOLVER]
