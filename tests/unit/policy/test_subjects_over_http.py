"""What subjects see of themselves, and that they learn nothing of anybody else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.policy.commands.choices import Person
from services.policy.subjects import Subjects, trusted
from shared.errors import TokenInvalid
from shared.events.policy import IdpRecord
from shared.identity.tokens import Subject, TrustedIssuer
from tests.unit.policy.front import Front
from tests.unit.policy.stories import NOON, World

WANTED = {"server": "patients-db", "field": "DB_URL", "reference": "hospital-a/db-url"}


@pytest.fixture
async def front() -> Front:
    """Hospital A with its agent `a`, hospital B with `b`, `both` in the two, and `none`."""
    made = Front()
    world = made.world
    await world.hospital()
    await world.profile("hospital-b")
    await world.mapping("agents-b", "hospital-b")
    await world.grant("hospital-b/db-url", "hospital-b")
    await world.binding("hospital-b/db-url", "hospital-b")
    idp = next(one for one in world.living() if isinstance(one, IdpRecord))
    groups = {"a": {"agents-a"}, "b": {"agents-b"}, "both": {"agents-a", "agents-b", "others"}, "none": set()}
    for name, held in groups.items():
        made.subjects.people[name] = Person(idp_id=idp.id, subject=name, groups=frozenset(held))
    made.subjects.people["elsewhere"] = Person(idp_id="idp/other", subject="a", groups=frozenset({"agents-a"}))
    return made


async def names(front: Front, token: str) -> list[tuple[str, list[str]]]:
    items = (await front.ask("GET", "/v1/me/references", token=token))["items"]
    return [(one["reference"], one["contexts"]) for one in items]


async def test_a_subject_sees_its_own_references_and_no_others(front: Front) -> None:
    assert await names(front, "a") == [("hospital-a/db-url", ["hospital-a"])]
    assert await names(front, "b") == [("hospital-b/db-url", ["hospital-b"])]
    assert len(await names(front, "both")) == 2
    assert await names(front, "none") == []


async def test_groups_of_another_identity_provider_are_other_groups(front: Front) -> None:
    assert await names(front, "elsewhere") == []


async def test_what_two_profiles_have_is_one_name_in_two_contexts(front: Front) -> None:
    await front.world.grant("hospital-a/db-url", "hospital-b")
    assert ("hospital-a/db-url", ["hospital-a", "hospital-b"]) in await names(front, "both")


async def test_a_window_that_is_not_open_and_a_reference_that_is_gone_are_not_shown(front: Front) -> None:
    await front.world.grant("hospital-a/later", starts_at=NOON + timedelta(hours=1))
    gone = await front.world.grant("hospital-a/gone")
    del front.world.catalog.references[gone.reference_id]
    assert await names(front, "a") == [("hospital-a/db-url", ["hospital-a"])]


async def test_a_choice_is_made_shown_and_taken_back_by_its_subject(front: Front) -> None:
    made = await front.ask("PUT", "/v1/me/choices", WANTED, token="a")
    assert made["entity"]["reference_name"] == "hospital-a/db-url"
    event = front.world.ledger.events[-1]
    assert (event.actor.subject, event.entity_id) == ("a", made["entity_id"])
    shown = (await front.ask("GET", "/v1/me/choices", token="a"))["items"]
    assert [one["id"] for one in shown] == [made["entity_id"]]
    assert (await front.ask("GET", "/v1/me/choices", token="b"))["items"] == []
    await front.ask("DELETE", f"/v1/me/choices/{made['entity_id']}", token="a")
    assert (await front.ask("GET", "/v1/me/choices", token="a"))["items"] == []


async def test_another_subject_s_choice_is_not_there(front: Front) -> None:
    made = await front.ask("PUT", "/v1/me/choices", WANTED, token="a")
    theirs = await front.send("DELETE", f"/v1/me/choices/{made['entity_id']}", token="both")
    nobody_s = await front.send("DELETE", "/v1/me/choices/" + "0" * 32, token="both")
    assert (theirs.status, theirs.body) == (nobody_s.status, nobody_s.body)
    assert theirs.status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"reference": "hospital-b/db-url"},
        {"reference": "absent"},
        {"server": "absent"},
        {"field": "OTHER"},
        {"context": "hospital-b"},
        {"context": "absent"},
    ],
    ids=lambda one: "-".join(next(iter(one.items()))),
)
async def test_what_is_another_s_answers_byte_for_byte_like_what_is_not_there(
    front: Front, change: dict[str, str]
) -> None:
    before = front.world.ledger.seq
    reply = await front.send("PUT", "/v1/me/choices", WANTED | change, token="a")
    missing = await front.send("PUT", "/v1/me/choices", WANTED | {"reference": "no-such"}, token="a")
    assert (reply.status, reply.body) == (missing.status, missing.body)
    assert front.world.ledger.seq == before


async def test_several_own_contexts_are_named_to_choose_from(front: Front) -> None:
    await front.world.grant("hospital-a/db-url", "hospital-b")
    problem = await front.ask("PUT", "/v1/me/choices", WANTED, token="both", expect=409)
    assert problem["choices"] == ["hospital-a", "hospital-b"]
    made = await front.ask("PUT", "/v1/me/choices", WANTED | {"context": "hospital-b"}, token="both")
    assert made["entity"]["profile_name"] == "hospital-b"


async def test_a_choice_that_can_not_be_is_refused_without_the_lock_that_changes_wait_for(front: Front) -> None:
    async with front.world.ledger.open(None):  # type: ignore[arg-type]
        await front.ask("PUT", "/v1/me/choices", WANTED | {"reference": "absent"}, token="a", expect=404)
        await front.ask("DELETE", "/v1/me/choices/" + "0" * 32, token="a", expect=404)


class FakeVerifier:
    """Vouches by the issuers that it was given last."""

    def __init__(self) -> None:
        self.trusted: list[TrustedIssuer] = []

    def replace_issuers(self, issuers: object) -> None:
        self.trusted = list(issuers)  # type: ignore[call-overload]

    async def verify(self, token: str) -> Subject:
        for one in self.trusted:
            if one.issuer == token:
                return Subject(one.idp_id, "ada", frozenset({"g"}), 2e9, b"")
        raise TokenInvalid


async def test_an_identity_provider_that_was_deleted_vouches_for_nobody_any_more() -> None:
    world = World()
    idp = await world.idp()
    subjects = Subjects(world.ledger, FakeVerifier())  # type: ignore[arg-type]
    person = await subjects.person(idp.issuer)
    assert (person.idp_id, person.subject, person.groups) == (idp.id, "ada", frozenset({"g"}))
    await world.delete(IdpRecord, "okta")
    with pytest.raises(TokenInvalid):
        await subjects.person(idp.issuer)


def test_an_entry_reaches_the_verifier_as_it_was_written() -> None:
    record = IdpRecord(
        id="idp/1",
        seq=1,
        revision=1,
        name="entra",
        issuer="https://i",
        jwks_uri="https://i/k",
        audience="api",
        subject_claim="oid",
        groups_claim="roles",
    )
    entry = trusted(record)
    assert (entry.idp_id, entry.issuer, entry.jwks_uri) == ("idp/1", "https://i", "https://i/k")
    assert (entry.audience, entry.subject_claim, entry.groups_claim) == ("api", "oid", "roles")
