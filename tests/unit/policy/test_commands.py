"""What stands together and what falls together, decided by the commands on a ledger in memory."""

from __future__ import annotations

import functools
from datetime import timedelta

import pytest

from services.policy.commands import assignments, foundations, outcomes, windows
from services.policy.commands.outcomes import Created, Unchanged, Updated
from services.policy.domain.drafts import (
    Approval,
    BindingDraft,
    GrantDraft,
    IdpDraft,
    MappingDraft,
    ProfileChange,
    ProfileDraft,
    ServerChange,
)
from services.policy.domain.kinds import links
from shared.errors import BadRequest, Conflict, NotAvailable, SignatureInvalid
from shared.events.changes import PolicyAction
from shared.events.definitions import EnvironmentField, definition_digest
from shared.events.policy import BindingRecord, GrantRecord, IdpRecord, MappingRecord, ProfileRecord, ServerRecord
from tests.fakes.policy_ledger import FakeWork
from tests.unit.policy.stories import HTTP, NOON, STDIO, World, refused


@pytest.fixture
async def world() -> World:
    made = World()
    await made.hospital()
    return made


async def test_the_same_twice_is_one_entity_and_one_event(world: World) -> None:
    events = len(world.ledger.events)
    outcome = await world.do(foundations.create_profile, ProfileDraft(name="hospital-a"))
    assert isinstance(outcome, Unchanged)
    assert len(world.ledger.events) == events
    assert outcome.receipt.event_id in {event.id for event in world.ledger.events}


async def test_a_name_with_other_content_is_taken(world: World) -> None:
    draft = ProfileDraft(name="hospital-a", description="other")
    assert isinstance(await refused(world, foundations.create_profile, draft), Conflict)


async def test_grants_that_differ_in_any_limit_stand_side_by_side(world: World) -> None:
    for limits in (
        {"server": "patients-db"},
        {"field": "DB_URL"},
        {"labels": {"env": "prod"}},
        {"ends_at": NOON + timedelta(days=1)},
        {"destination": "mcp.example.org"},
    ):
        await world.grant(**limits)
    assert sum(isinstance(one, GrantRecord) for one in world.living()) == 6


async def test_one_moment_spelt_in_two_zones_is_one_grant(world: World) -> None:
    first = await world.grant(ends_at="2031-01-01T12:00:00+02:00")
    again = await world.grant(ends_at="2031-01-01T10:00:00Z")
    assert first.id == again.id


@pytest.mark.parametrize(
    ("model", "name", "fallen"),
    [
        (IdpRecord, "okta", {MappingRecord}),
        (ProfileRecord, "hospital-a", {MappingRecord, GrantRecord, BindingRecord}),
        (ServerRecord, "patients-db", {BindingRecord}),
    ],
)
async def test_what_rests_on_an_entity_falls_with_it_in_one_commit(
    world: World, model: type[ProfileRecord], name: str, fallen: set[type]
) -> None:
    before = {one.id: type(one) for one in world.living()}
    receipt = await world.delete(model, name)
    after = {one.id for one in world.living()}
    assert {kind for entity_id, kind in before.items() if entity_id not in after} == {model, *fallen}
    assert set(receipt.ended) == before.keys() - after
    event = world.ledger.events[-1]
    assert (event.action, event.ended, event.seq) == (PolicyAction.DELETED, receipt.ended, world.ledger.seq)
    assert all(one.deleted and one.seq == event.seq for one in world.ledger.gone[-len(receipt.ended) :])


async def test_nothing_ever_links_to_what_is_gone(world: World) -> None:
    await world.profile("hospital-b")
    await world.mapping("agents-b", "hospital-b")
    await world.grant(profile="hospital-b", server="patients-db")
    await world.binding(profile="hospital-b")
    for model, name in ((ServerRecord, "patients-db"), (IdpRecord, "okta"), (ProfileRecord, "hospital-b")):
        await world.delete(model, name)
        living = {one.id for one in world.living()}
        kinds = ("idp/", "profile/", "server/")
        assert all(link in living for one in world.living() for link in links(one) if link.startswith(kinds))


async def test_an_event_with_very_many_ids_is_cut_behind_the_entity_that_they_rest_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "MOST_ENDED", 3)
    for number in range(5):
        await world.mapping(f"group-{number}")
    profile = await world.profile()
    receipt = await world.delete(ProfileRecord, "hospital-a")
    assert len(receipt.ended) == 9
    assert world.ledger.events[-1].ended == receipt.ended[:3]
    assert world.ledger.events[-1].ended[0] == profile.id


async def test_another_definition_ends_the_bindings_that_pin_the_present_one(world: World) -> None:
    binding = await world.binding()
    change = ServerChange(owner="it", definition=STDIO.model_copy(update={"args": ("-x",)}))
    outcome = await world.do(foundations.update_server, "patients-db", change)
    assert isinstance(outcome, Updated)
    assert outcome.receipt.ended == (binding.id,)
    assert outcome.record.digest == definition_digest(change.definition)
    again = await world.do(foundations.update_server, "patients-db", change)
    assert isinstance(again, Unchanged)
    third = ServerChange(owner="it", definition=STDIO.model_copy(update={"args": ("-y",)}))
    assert (await world.do(foundations.update_server, "patients-db", third)).receipt.ended == ()


async def test_approving_pins_the_definition_of_now_and_nothing_else(world: World) -> None:
    binding = await world.binding()
    change = ServerChange(owner="it", definition=STDIO.model_copy(update={"args": ("-x",)}))
    server = (await world.do(foundations.update_server, "patients-db", change)).record
    old = Approval(definition_digest=binding.definition_digest)
    assert isinstance(await refused(world, assignments.approve_binding, binding.id, old), Conflict)
    approved = await world.do(assignments.approve_binding, binding.id, Approval(definition_digest=server.digest))
    assert approved.record.definition_digest == server.digest
    assert approved.record.revision == binding.revision + 1
    assert approved.receipt.ended == ()


async def test_a_binding_whose_field_is_gone_is_not_approved(world: World) -> None:
    binding = await world.binding()
    other = STDIO.model_copy(update={"fields": (EnvironmentField(name="OTHER"),)})
    await world.do(foundations.update_server, "patients-db", ServerChange(definition=other))
    assert isinstance(await refused(world, assignments.approve_binding, binding.id, Approval()), BadRequest)


@pytest.mark.parametrize(
    "limits",
    [{"server": "other"}, {"field": "OTHER"}, {"destination": "mcp.example.org"}],
    ids=lambda one: next(iter(one)),
)
async def test_a_binding_needs_a_grant_that_covers_it(limits: dict[str, str]) -> None:
    world = World()
    await world.profile()
    await world.server()
    await world.server("other", HTTP.model_copy(update={"fields": ()}))
    await world.grant(**limits)
    known = await world.catalog.find("hospital-a/db-url")
    draft = BindingDraft(profile="hospital-a", server="patients-db", field="DB_URL", reference="hospital-a/db-url")
    assert isinstance(await refused(world, assignments.create_binding, draft, known), Conflict)


async def test_a_binding_moves_only_to_another_reference(world: World) -> None:
    binding = await world.binding()
    await world.grant("hospital-a/read-only")
    other = await world.catalog.find("hospital-a/read-only")
    draft = BindingDraft(profile="hospital-a", server="patients-db", field="DB_URL", reference="hospital-a/read-only")
    moved = await world.do(assignments.update_binding, binding.id, draft, other)
    assert moved.receipt.ended == (binding.id,)
    await world.profile("hospital-b")
    elsewhere = draft.model_copy(update={"profile": "hospital-b"})
    assert isinstance(await refused(world, assignments.update_binding, binding.id, elsewhere, other), BadRequest)


async def test_renaming_never_takes_a_name_that_is_taken(world: World) -> None:
    await world.profile("hospital-b")
    taken = ProfileChange(name="hospital-b")
    assert isinstance(await refused(world, foundations.update_profile, "hospital-a", taken), Conflict)
    renamed = await world.do(foundations.update_profile, "hospital-a", ProfileChange(name="hospital-c"))
    assert (renamed.record.name, renamed.record.revision, renamed.receipt.ended) == ("hospital-c", 2, ())


async def test_what_a_body_names_must_be_there_and_what_a_path_names_too(world: World) -> None:
    known = await world.catalog.find("hospital-a/db-url")
    draft = GrantDraft(profile="nobody", reference="hospital-a/db-url")
    assert isinstance(await refused(world, assignments.create_grant, draft, known), BadRequest)
    mapping = MappingDraft(idp="okta", group="g", profile="nobody")
    assert isinstance(await refused(world, foundations.create_mapping, mapping), BadRequest)
    assert isinstance(await refused(world, foundations.update_profile, "nobody", ProfileChange()), NotAvailable)
    with pytest.raises(NotAvailable):
        await world.delete(GrantRecord, "0" * 32)


async def test_one_issuer_has_one_entry(world: World) -> None:
    draft = IdpDraft(name="other", issuer="https://idp.example", jwks_uri="https://idp.example/jwks")
    assert isinstance(await refused(world, foundations.create_idp, draft), Conflict)


@pytest.mark.parametrize(
    "url", ["ftp://a.example", "https://", "https://u@a.example", "https://[", "a.example", "https://a\n.x"]
)
async def test_an_identity_provider_needs_real_addresses(url: str) -> None:
    draft = IdpDraft(name="other", issuer="https://a.example", jwks_uri=url)
    assert isinstance(await refused(World(), foundations.create_idp, draft), BadRequest)


async def test_a_window_that_opens_is_told_and_published_again(world: World) -> None:
    grant = await world.grant(starts_at=NOON + timedelta(hours=1), ends_at=NOON + timedelta(hours=2))
    world.ledger.now = NOON + timedelta(hours=1)
    await world.do(windows.turn, grant)
    event = world.ledger.events[-1]
    assert (event.action, event.entity_id, event.ended) == (PolicyAction.STARTED, grant.id, ())
    again = world.ledger.kept[grant.id].record
    assert (again.seq, again.revision) == (event.seq, 2)


async def test_a_window_that_closes_ends_the_grant(world: World) -> None:
    grant = await world.grant(starts_at=NOON + timedelta(hours=1), ends_at=NOON + timedelta(hours=2))
    world.ledger.now = NOON + timedelta(hours=2)
    await world.do(windows.turn, grant)
    event = world.ledger.events[-1]
    assert (event.action, event.entity_id, event.ended) == (PolicyAction.ENDED, grant.id, (grant.id,))
    assert grant.id not in world.ledger.kept


async def test_creating_says_who_created_what(world: World) -> None:
    outcome = await world.do(foundations.create_profile, ProfileDraft(name="hospital-z"))
    assert isinstance(outcome, Created)
    event = world.ledger.events[-1]
    assert (event.action, event.entity_kind, event.entity_name) == (PolicyAction.CREATED, "profile", "hospital-z")
    assert (event.actor.subject, event.ended) == ("ada", ())


async def test_very_many_suspended_bindings_end_with_their_server_instead_of_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event has room for so many ids; what rests on a binding rests on its server too."""
    monkeypatch.setattr(outcomes, "MOST_ENDED", 1)
    await world.profile("hospital-b")
    await world.grant(profile="hospital-b")
    await world.binding(profile="hospital-b")
    server = await world.server()
    change = ServerChange(owner="it", definition=STDIO.model_copy(update={"args": ("-x",)}))
    outcome = await world.do(foundations.update_server, "patients-db", change)
    assert world.ledger.events[-1].ended == outcome.receipt.ended == (server.id,)


async def test_rows_that_somebody_slipped_in_never_keep_a_grant_from_being_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = await world.grant()

    async def not_ours(*_: object) -> object:
        raise SignatureInvalid

    monkeypatch.setattr(FakeWork, "linked", not_ours)
    receipt = await world.delete(GrantRecord, grant.id)
    assert receipt.ended == (grant.id,)


async def test_keys_over_plain_http_are_refused_when_they_are_entered_and_not_when_the_first_token_comes() -> None:
    plain = IdpDraft(name="other", issuer="http://a.example", jwks_uri="http://a.example/jwks")
    error = await refused(World(), foundations.create_idp, plain)
    assert isinstance(error, BadRequest)
    assert "https" in error.detail
    allowing = functools.partial(foundations.create_idp, allow_http=True)
    assert isinstance(await World().do(allowing, plain), Created)
