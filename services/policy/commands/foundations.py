"""Identity providers, profiles, mappings and servers: what assignments stand on."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from services.policy.commands import outcomes
from services.policy.commands.outcomes import Created, Unchanged, Updated, addressed, change, create, named
from services.policy.domain.definitions import check_definition
from services.policy.domain.drafts import (
    LONGEST_URL,
    IdpDraft,
    MappingDraft,
    ProfileChange,
    ProfileDraft,
    ServerChange,
    ServerDraft,
)
from services.policy.domain.kinds import Kind, issuer_link, new_id
from services.policy.domain.names import check_group, check_line, check_name, check_text
from services.policy.domain.ports import Work
from shared.errors import BadRequest, Conflict
from shared.events.definitions import definition_digest
from shared.events.policy import BindingRecord, IdpRecord, MappingRecord, ProfileRecord, ServerRecord


async def create_idp(
    work: Work, draft: IdpDraft, *, allow_http: bool = False
) -> Created[IdpRecord] | Unchanged[IdpRecord]:
    """Trust an identity provider. One issuer has one entry: else nothing says whose a token is.

    `allow_http`, in development only: keys that come over plain http are whoever's on the way.
    """
    check_name(draft.name, of="identity provider")
    # The issuer is only compared with what tokens say; the keys are fetched.
    _check_url(draft.issuer, place="issuer", schemes={"https", "http"})
    _check_url(draft.jwks_uri, place="jwks_uri", schemes={"https", "http"} if allow_http else {"https"})
    for place, text in (
        ("audience", draft.audience),
        ("subject claim", draft.subject_claim),
        ("groups claim", draft.groups_claim),
    ):
        check_line(text, of=place)
    record = IdpRecord(id=new_id(Kind.IDP), seq=work.seq, revision=1, **draft.model_dump())
    # Works are serial, so nobody else can enter the issuer between this look and the commit.
    others = await work.linked(IdpRecord, issuer_link(draft.issuer))
    if any(other.name != draft.name for other in others):
        raise Conflict("Another identity provider has that issuer.")
    return await create(work, record)


def _check_url(text: str, *, place: str, schemes: Collection[str]) -> None:
    check_line(text, of=place, limit=LONGEST_URL)
    try:
        parts = urlsplit(text)
        # urlsplit() finds a bad port only when it is asked for the port.
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in schemes or parts.username is not None:
        raise BadRequest(f"The {place} must be an https URL with a host and without a user.")


async def create_profile(work: Work, draft: ProfileDraft) -> Created[ProfileRecord] | Unchanged[ProfileRecord]:
    """Make a profile."""
    _check_profile(draft)
    record = ProfileRecord(id=new_id(Kind.PROFILE), seq=work.seq, revision=1, **draft.model_dump())
    return await create(work, record)


async def update_profile(
    work: Work, text: str, wanted: ProfileChange
) -> Updated[ProfileRecord] | Unchanged[ProfileRecord]:
    """Rename or describe a profile. Leases rest on its id and go on."""
    current = await addressed(work, ProfileRecord, text)
    draft = ProfileDraft(name=wanted.name or current.name, description=wanted.description)
    _check_profile(draft)
    return await change(work, current, current.model_copy(update=draft.model_dump()))


def _check_profile(draft: ProfileDraft) -> None:
    check_name(draft.name, of="profile")
    check_text(draft.description, of="description")


async def create_mapping(work: Work, draft: MappingDraft) -> Created[MappingRecord] | Unchanged[MappingRecord]:
    """Let a group belong to a profile."""
    check_group(draft.group)
    idp = await named(work, IdpRecord, draft.idp, place="idp")
    profile = await named(work, ProfileRecord, draft.profile, place="profile")
    record = MappingRecord(
        id=new_id(Kind.MAPPING), seq=work.seq, revision=1, idp_id=idp.id, group=draft.group, profile_id=profile.id
    )
    return await create(work, record)


async def create_server(
    work: Work, draft: ServerDraft, *, allowed: frozenset[str] = frozenset()
) -> Created[ServerRecord] | Unchanged[ServerRecord]:
    """Define an MCP server. `allowed` are reserved variables that it may have."""
    _check_server(draft, allowed)
    record = ServerRecord(
        id=new_id(Kind.SERVER),
        seq=work.seq,
        revision=1,
        name=draft.name,
        owner=draft.owner,
        definition=draft.definition,
        digest=definition_digest(draft.definition),
    )
    return await create(work, record)


async def update_server(
    work: Work, text: str, wanted: ServerChange, *, allowed: frozenset[str] = frozenset()
) -> Updated[ServerRecord] | Unchanged[ServerRecord]:
    """Change a server. With another definition, the bindings that pin the present one end until approved."""
    current = await addressed(work, ServerRecord, text)
    draft = ServerDraft(name=wanted.name or current.name, owner=wanted.owner, definition=wanted.definition)
    _check_server(draft, allowed)
    digest = definition_digest(draft.definition)
    said = {"name": draft.name, "owner": draft.owner, "definition": draft.definition, "digest": digest}
    suspended: tuple[str, ...] = ()
    # Only what pins the present definition: older ones were suspended when theirs went.
    if digest != current.digest:
        bindings = await work.linked(BindingRecord, current.id)
        suspended = tuple(one.id for one in bindings if one.definition_digest == current.digest)
    if len(suspended) > outcomes.MOST_ENDED:
        # More than an event may hold: what rests on one of them rests on the server too, which takes some more along.
        suspended = (current.id,)
    return await change(work, current, current.model_copy(update=said), ended=suspended)


def _check_server(draft: ServerDraft, allowed: frozenset[str]) -> None:
    check_name(draft.name, of="server")
    check_line(draft.owner, of="owner")
    check_definition(draft.definition, allowed=allowed)
