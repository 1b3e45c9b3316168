"""Grants, variables and bindings: which profile may use what, and where it goes."""

from __future__ import annotations

from datetime import UTC, datetime

from services.policy.commands.outcomes import (
    Created,
    Unchanged,
    Updated,
    addressed,
    change,
    create,
    named,
)
from services.policy.domain.definitions import field_names
from services.policy.domain.drafts import Approval, BindingDraft, GrantDraft, VariableDraft
from services.policy.domain.grants import any_covers, check_grant
from services.policy.domain.kinds import Kind, new_id
from services.policy.domain.names import check_labels
from services.policy.domain.origins import check_readable, check_variable, origin_of
from services.policy.domain.ports import Work
from shared.errors import BadRequest, Conflict
from shared.events.catalog import ReferenceRecord
from shared.events.policy import (
    BindingRecord,
    EnvironmentOrigin,
    GrantRecord,
    LocalValueOrigin,
    ProfileRecord,
    ServerRecord,
    VariableRecord,
)


async def create_grant(
    work: Work, draft: GrantDraft, reference: ReferenceRecord
) -> Created[GrantRecord] | Unchanged[GrantRecord]:
    """Let a profile use a reference that the catalog has."""
    profile = await named(work, ProfileRecord, draft.profile, place="profile")
    server = None if draft.server is None else await named(work, ServerRecord, draft.server, place="server")
    record = GrantRecord(
        id=new_id(Kind.GRANT),
        seq=work.seq,
        revision=1,
        profile_id=profile.id,
        reference_id=reference.id,
        server_id=None if server is None else server.id,
        field=draft.field,
        destination=draft.destination,
        labels=draft.labels,
        starts_at=_utc(draft.starts_at),
        ends_at=_utc(draft.ends_at),
    )
    # By the database's clock, which also ends it: a window must not look open here and be over there.
    check_grant(record, server=server, now=work.now)
    return await create(work, record)


def _utc(moment: datetime | None) -> datetime | None:
    """The same moment as everybody writes it, so that two spellings are one grant."""
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise BadRequest("That is beyond any calendar.") from None


async def create_binding(
    work: Work, draft: BindingDraft, reference: ReferenceRecord | None
) -> Created[BindingRecord] | Unchanged[BindingRecord]:
    """Say where a field's value comes from, for the definition as it is now.

    `reference` is the one that the draft names, for which the profile has a grant; None where it names another origin.
    """
    profile = await named(work, ProfileRecord, draft.profile, place="profile")
    server = await named(work, ServerRecord, draft.server, place="server")
    # Who names the digest that he read is told if somebody changed the definition in between.
    _check_pin(server, field=draft.field, digest=draft.definition_digest)
    record = BindingRecord(
        id=new_id(Kind.BINDING),
        seq=work.seq,
        revision=1,
        profile_id=profile.id,
        server_id=server.id,
        field=draft.field,
        origin=origin_of(draft, reference),
        definition_digest=server.digest,
    )
    await _check_granted(work, record, server)
    return await create(work, record)


async def update_binding(
    work: Work, text: str, draft: BindingDraft, reference: ReferenceRecord | None
) -> Updated[BindingRecord] | Unchanged[BindingRecord]:
    """Let the same field come from elsewhere; leases that rest on the binding end."""
    current = await addressed(work, BindingRecord, text)
    profile = await named(work, ProfileRecord, draft.profile, place="profile")
    server = await named(work, ServerRecord, draft.server, place="server")
    if (profile.id, server.id, draft.field) != (current.profile_id, current.server_id, current.field):
        raise BadRequest("A binding keeps its profile, server and field: delete it and make another one.")
    _check_pin(server, field=draft.field, digest=draft.definition_digest)
    wanted = current.model_copy(update={"origin": origin_of(draft, reference), "definition_digest": server.digest})
    await _check_granted(work, wanted, server)
    # Leases rest on the binding's id, which stays: without an end they would keep the old origin's value.
    return await change(work, current, wanted, ended=(current.id,))


async def approve_binding(
    work: Work, text: str, approval: Approval
) -> Updated[BindingRecord] | Unchanged[BindingRecord]:
    """Pin the server's definition of now, on an administrator's word that it is fine."""
    current = await addressed(work, BindingRecord, text)
    server = await work.get(ServerRecord, current.server_id)
    if server is None:
        raise Conflict("The server is gone.")
    _check_pin(server, field=current.field, digest=approval.definition_digest)
    # Nothing ends: what rested on the binding ended when its definition was changed.
    return await change(work, current, current.model_copy(update={"definition_digest": server.digest}))


def _check_pin(server: ServerRecord, *, field: str, digest: str | None) -> None:
    if field not in field_names(server.definition):
        raise BadRequest("The server's definition has no field by that name.")
    if digest is not None and digest != server.digest:
        raise Conflict("The server's definition has another digest by now: read it again before you approve it.")


async def create_variable(work: Work, draft: VariableDraft) -> Created[VariableRecord] | Unchanged[VariableRecord]:
    """Let bindings name an environment variable, which instances with these labels then read for themselves."""
    check_variable(draft.name)
    check_labels(draft.labels)
    record = VariableRecord(id=new_id(Kind.VARIABLE), seq=work.seq, revision=1, **draft.model_dump())
    return await create(work, record)


async def _check_granted(work: Work, binding: BindingRecord, server: ServerRecord) -> None:
    match binding.origin:
        case EnvironmentOrigin() as origin:
            check_readable(origin, await work.find(VariableRecord, origin.variable))
            return
        case LocalValueOrigin():
            return
    # Open or not by now: a binding may be made before its grant's window begins.
    grants = await work.linked(GrantRecord, binding.profile_id, binding.origin.reference_id)
    if not any_covers(grants, server=server, field=binding.field):
        raise Conflict("The profile has no grant for that reference that covers this field: grant it first.")
