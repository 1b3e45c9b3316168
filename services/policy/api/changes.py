"""Routes that create and change: identity providers, profiles, mappings, servers, grants, bindings."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from services.policy.api.desk import Desk
from services.policy.api.views import BindingView, Changed, GrantView, MappingView
from services.policy.commands import assignments, foundations
from services.policy.domain.drafts import (
    Approval,
    BindingDraft,
    GrantDraft,
    IdpDraft,
    MappingDraft,
    ProfileChange,
    ProfileDraft,
    ServerChange,
    ServerDraft,
    VariableDraft,
)
from services.policy.domain.origins import check_one_origin
from shared.administration import Administrator, Role
from shared.events.catalog import ReferenceRecord
from shared.events.policy import IdpRecord, ProfileRecord, ServerRecord, VariableRecord

_APPROVE_AS_IS = Approval()


def routes(desk: Desk) -> APIRouter:
    """The routes, under `/v1`."""
    router = APIRouter()
    _add_foundations(router, desk)
    _add_updates(router, desk)
    _add_grants(router, desk)
    _add_bindings(router, desk)
    return router


def _add_foundations(router: APIRouter, desk: Desk) -> None:
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.post("/v1/idps", status_code=201, response_model=Changed[IdpRecord])
    async def create_idp(draft: IdpDraft, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await foundations.create_idp(work, draft, allow_http=desk.allow_http))

    @router.post("/v1/profiles", status_code=201, response_model=Changed[ProfileRecord])
    async def create_profile(draft: ProfileDraft, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await foundations.create_profile(work, draft))

    @router.post("/v1/mappings", status_code=201, response_model=Changed[MappingView])
    async def create_mapping(draft: MappingDraft, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await foundations.create_mapping(work, draft))

    @router.post("/v1/servers", status_code=201, response_model=Changed[ServerRecord])
    async def create_server(draft: ServerDraft, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await foundations.create_server(work, draft, allowed=desk.allowed_variables))


def _add_updates(router: APIRouter, desk: Desk) -> None:
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.put("/v1/profiles/{key:path}", response_model=Changed[ProfileRecord])
    async def update_profile(key: str, wanted: ProfileChange, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await foundations.update_profile(work, key, wanted))

    @router.put("/v1/servers/{key:path}", response_model=Changed[ServerRecord])
    async def update_server(key: str, wanted: ServerChange, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            changed = await foundations.update_server(work, key, wanted, allowed=desk.allowed_variables)
            return await desk.said(work, changed)


def _add_grants(router: APIRouter, desk: Desk) -> None:
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.post("/v1/grants", status_code=201, response_model=Changed[GrantView])
    async def create_grant(draft: GrantDraft, who: Annotated[Administrator, admin]) -> Response:
        # Before the work: it may wait for the catalog for seconds, and every other change would wait with it.
        reference = await desk.reference(draft.reference)
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await assignments.create_grant(work, draft, reference))


def _add_bindings(router: APIRouter, desk: Desk) -> None:
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.post("/v1/variables", status_code=201, response_model=Changed[VariableRecord])
    async def allow_variable(draft: VariableDraft, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await assignments.create_variable(work, draft))

    @router.post("/v1/bindings", status_code=201, response_model=Changed[BindingView])
    async def create_binding(draft: BindingDraft, who: Annotated[Administrator, admin]) -> Response:
        reference = await _bound_reference(desk, draft)
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await assignments.create_binding(work, draft, reference))

    @router.put("/v1/bindings/{key:path}", response_model=Changed[BindingView])
    async def update_binding(key: str, draft: BindingDraft, who: Annotated[Administrator, admin]) -> Response:
        reference = await _bound_reference(desk, draft)
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await assignments.update_binding(work, key, draft, reference))

    @router.post("/v1/bindings/{key:path}/approve", response_model=Changed[BindingView])
    async def approve_binding(
        key: str, who: Annotated[Administrator, admin], approval: Approval = _APPROVE_AS_IS
    ) -> Response:
        async with desk.ledger.open(who.actor) as work:
            return await desk.said(work, await assignments.approve_binding(work, key, approval))


async def _bound_reference(desk: Desk, draft: BindingDraft) -> ReferenceRecord | None:
    """The reference that a draft names, if it names one."""
    check_one_origin(draft)
    return None if draft.reference is None else await desk.reference(draft.reference)
