"""A gateway that is shut out: refused and empty within a second, and let in again only for new leases."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from shared import topics
from shared.events.access import Phase
from shared.events.notices import Notice, NoticeKind
from shared.events.policy import EnvironmentOrigin, InstanceState
from tests.integration.gateway.conftest import PATIENTS, Wing
from tests.integration.gateway.test_environment import HERE, VARIABLE, dsn, mapped, place, recorded
from tests.integration.gateway.test_gateway import patients
from tests.waiting import until

__all__ = ["mapped"]

WITHIN_S = 1.0


async def test_a_banned_instance_is_empty_and_refused_within_a_second_until_it_is_allowed(mapped: Wing) -> None:
    estate = mapped.world.estate
    estate.variable(VARIABLE)
    estate.binding_to("hospital-a", EnvironmentOrigin(variable=VARIABLE), server=HERE)
    async with place(mapped, "stolen", HOSPITAL_DB_URL=dsn(mapped, "hospital-a")) as stolen:
        ledger = stolen.gateway.instance.ledger
        async with stolen.connect() as client:
            assert await patients(client) == PATIENTS["hospital-a"]
            began = time.monotonic()
            await ban(mapped, "stolen")
            await until(lambda: ledger.progress().open_leases == 0, within=5)
            assert (await stolen.asking.ask(stolen.token, HERE)).status == 401
            assert time.monotonic() - began < WITHIN_S
        # The assertion itself is refused: nothing about servers or contexts is even looked at.
        assert {one.phase for one in await recorded(mapped, "stolen")} == {Phase.AUTHORISED, Phase.RELEASED}
        estate.again("instance/stolen", state=InstanceState.ACTIVE)
        await mapped.world.tell()
        assert ledger.progress().open_leases == 0, "allowing brings nothing back"
        async with stolen.connect() as client:
            assert await patients(client) == PATIENTS["hospital-a"]


async def ban(wing: Wing, name: str) -> None:
    """What policy commits, and the notice that the notifier makes of it."""
    wing.world.estate.again(f"instance/{name}", state=InstanceState.BANNED)
    seq = wing.world.estate.seqs[topics.POLICY]
    await wing.world.tell()
    await wing.say(
        Notice(
            id=f"notice/ban-{name}",
            kind=NoticeKind.REVOCATION,
            cause_id=f"change/ban-{name}",
            ended=(f"instance/{name}",),
            policy_seq=seq,
            at=datetime.now(UTC),
        )
    )
