"""Values whose server or profile policy removed: still their owner's to delete, and nobody else's to learn of."""

from __future__ import annotations

from typing import Any, cast

import pytest

from services.resolver.custody.value_desk import ValueDesk
from services.resolver.domain.local_values import Owner, Slot
from services.resolver.domain.plans import Person
from services.resolver.trust import Trust, pinned
from shared.crypto.secret import SecretBytes
from shared.errors import NotAvailable
from shared.events.policy import LocalOwner, LocalValueOrigin
from tests.fakes.estate import Estate, hospitals
from tests.fakes.resolving import FakeKnowledge
from tests.integration.custody.conftest import ALICE, House, Replica

GROUP = "hospital-a-staff"
AGENT = Person(idp_id="idp/okta", subject="agent", groups=frozenset({GROUP}))
OTHER = Person(idp_id="idp/okta", subject="other", groups=frozenset({GROUP}))
SERVER, SERVER_ID, FIELD = "patients-db", "server/patients-db", "DB_URL"


class Office:
    """A desk whose policy the test writes."""

    def __init__(self, replica: Replica) -> None:
        self.estate: Estate = hospitals()
        trust: Trust = pinned(
            policy_key=self.estate.policy_key.verify_key.to_base64(),
            catalog_key=self.estate.catalog_key.verify_key.to_base64(),
        )
        self.knowledge = FakeKnowledge(trust)
        self.desk = ValueDesk(replica.values, self.knowledge, cast("Any", None), trust)
        self.estate.binding_to("hospital-a", LocalValueOrigin(owner=LocalOwner.SUBJECT))
        self.knowledge.learn(self.estate)

    async def enter(self) -> None:
        with SecretBytes(b"agent's") as value:
            await self.desk.enter_own(AGENT, SERVER, FIELD, value)
        with SecretBytes(b"everybody's") as value:
            await self.desk.enter_for("hospital-a", SERVER, FIELD, value, by=ALICE)

    def end(self, id_: str) -> None:
        self.estate.end(id_)
        self.knowledge.learn(self.estate)


async def test_a_value_whose_server_was_removed_is_deleted_as_it_is_listed(house: House) -> None:
    await house.generate()
    async with house.replica() as replica:
        office = Office(replica)
        await office.enter()
        office.end(SERVER_ID)
        assert {one.server for one in await office.desk.list_own(AGENT)} == {SERVER_ID}
        with pytest.raises(NotAvailable):
            await office.desk.delete_own(AGENT, SERVER, FIELD)
        assert (await office.desk.delete_own(AGENT, SERVER_ID, FIELD)).action == "deleted"
        assert (await office.desk.delete_for("hospital-a", SERVER_ID, FIELD, by=ALICE)).action == "deleted"
        assert await office.desk.list_own(AGENT) == []


async def test_a_value_of_a_profile_that_was_removed_is_deleted_by_the_profiles_id(house: House) -> None:
    await house.generate()
    async with house.replica() as replica:
        office = Office(replica)
        await office.enter()
        office.end("profile/hospital-a")
        with pytest.raises(NotAvailable):
            await office.desk.delete_for("hospital-a", SERVER, FIELD, by=ALICE)
        entered = await office.desk.delete_for("profile/hospital-a", SERVER, FIELD, by=ALICE)
        assert entered.value_id == Slot(Owner(LocalOwner.PROFILE, "profile/hospital-a"), SERVER_ID, FIELD).id


async def test_who_has_no_value_there_learns_nothing_by_a_servers_id(house: House) -> None:
    await house.generate()
    async with house.replica() as replica:
        office = Office(replica)
        await office.enter()
        office.end(SERVER_ID)
        answers = []
        for server in (SERVER_ID, SERVER, "server/none", "none"):
            with pytest.raises(NotAvailable) as refused:
                await office.desk.delete_own(OTHER, server, FIELD)
            answers.append((type(refused.value), refused.value.detail))
        assert len(set(answers)) == 1
        assert len(await office.desk.list_own(AGENT)) == 2


async def test_a_server_that_shares_its_name_is_listed_by_what_deletes_it(house: House) -> None:
    await house.generate()
    async with house.replica() as replica:
        office = Office(replica)
        await office.enter()
        office.estate.again(SERVER_ID, name="renamed")
        office.estate.server(SERVER)
        office.estate.server("other")
        office.estate.again("server/other", name=SERVER)
        office.knowledge.learn(office.estate)
        (own,) = [one for one in await office.desk.list_own(AGENT) if one.profile is None]
        assert (await office.desk.delete_own(AGENT, own.server, FIELD)).action == "deleted"
