"""Routes that every kind of entity has: list, show, delete."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from services.policy.api.desk import Desk, receipt_body, written
from services.policy.api.views import (
    BindingView,
    ChoiceView,
    GrantView,
    InstanceView,
    Listing,
    MappingView,
    ReceiptView,
)
from services.policy.commands.outcomes import addressed, delete
from services.policy.domain.ports import Page, Reading
from shared.administration import Administrator, Role
from shared.errors import NotAvailable
from shared.events.policy import (
    BindingRecord,
    ChoiceRecord,
    GrantRecord,
    IdpRecord,
    InstanceRecord,
    MappingRecord,
    PolicyRecord,
    ProfileRecord,
    ServerRecord,
    VariableRecord,
)

MOST_ITEMS = 500

Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS)]
After = Annotated[str | None, Query(max_length=100)]
Filter = Annotated[str | None, Query(max_length=256, description="name or id")]

NAMED: dict[str, tuple[type[PolicyRecord], type[PolicyRecord]]] = {
    "idps": (IdpRecord, IdpRecord),
    "profiles": (ProfileRecord, ProfileRecord),
    "servers": (ServerRecord, ServerRecord),
    "instances": (InstanceRecord, InstanceView),
    "variables": (VariableRecord, VariableRecord),
}
LINKED: dict[str, tuple[type[PolicyRecord], type[PolicyRecord]]] = {
    "mappings": (MappingRecord, MappingView),
    "grants": (GrantRecord, GrantView),
    "bindings": (BindingRecord, BindingView),
    "choices": (ChoiceRecord, ChoiceView),
}


def routes(desk: Desk) -> APIRouter:
    """The routes of all kinds, under `/v1`."""
    router = APIRouter()
    for path, (model, view) in NAMED.items():
        _add_list(router, desk, path, model, view)
    for path, (model, view) in LINKED.items():
        _add_filtered_list(router, desk, path, model, view)
    for path, (model, view) in (NAMED | LINKED).items():
        _add_one(router, desk, path, model, view)
    return router


def _add_list(router: APIRouter, desk: Desk, path: str, model: type[PolicyRecord], view: type[PolicyRecord]) -> None:
    reader = Depends(desk.guard.requires(Role.AUDITOR, Role.OPERATOR))

    @router.get(f"/v1/{path}", dependencies=[reader], response_model=Listing[view], name=f"list {path}")  # type: ignore[valid-type]
    async def list_all(limit: Limit = 100, after: After = None) -> Response:
        async with desk.ledger.read() as reading:
            return await desk.listed(reading, await reading.page(model, links=(), after=after, limit=limit))


def _add_filtered_list(
    router: APIRouter, desk: Desk, path: str, model: type[PolicyRecord], view: type[PolicyRecord]
) -> None:
    reader = Depends(desk.guard.requires(Role.AUDITOR, Role.OPERATOR))

    @router.get(f"/v1/{path}", dependencies=[reader], response_model=Listing[view], name=f"list {path}")  # type: ignore[valid-type]
    async def list_some(  # noqa: PLR0917 - FastAPI passes them by name
        limit: Limit = 100,
        after: After = None,
        profile: Filter = None,
        server: Filter = None,
        idp: Filter = None,
        reference: Filter = None,
    ) -> Response:
        found = None if reference is None else await desk.catalog.find(reference)
        wanted: dict[type[PolicyRecord], str | None] = {ProfileRecord: profile, ServerRecord: server, IdpRecord: idp}
        async with desk.ledger.read() as reading:
            links = await _links(reading, wanted)
            # A filter that names nothing finds nothing; left out, it would find everything.
            if links is None or (reference is not None and found is None):
                return await desk.listed(reading, Page((), None))
            targets = [*links, *([found.id] if found is not None else [])]
            return await desk.listed(reading, await reading.page(model, links=targets, after=after, limit=limit))


async def _links(reading: Reading, wanted: dict[type[PolicyRecord], str | None]) -> list[str] | None:
    """The ids that are meant; None if one of them is nothing."""
    found: list[str] = []
    for model, text in wanted.items():
        if text is None:
            continue
        entity = await reading.find(model, text)
        if entity is None:
            return None
        found.append(entity.id)
    return found


def _add_one(router: APIRouter, desk: Desk, path: str, model: type[PolicyRecord], view: type[PolicyRecord]) -> None:
    reader = Depends(desk.guard.requires(Role.AUDITOR, Role.OPERATOR))
    admin = Depends(desk.guard.requires(Role.ADMIN))

    @router.get(f"/v1/{path}/{{key:path}}", dependencies=[reader], response_model=view, name=f"show {path}")
    async def show(key: str) -> Response:
        async with desk.ledger.read() as reading:
            record = await reading.find(model, key)
            if record is None:
                raise NotAvailable
            return await desk.shown(reading, record)

    @router.delete(f"/v1/{path}/{{key:path}}", response_model=ReceiptView, name=f"delete {path}")
    async def remove(key: str, who: Annotated[Administrator, admin]) -> Response:
        async with desk.ledger.open(who.actor) as work:
            receipt = await delete(work, await addressed(work, model, key))
        return written(receipt_body(receipt))
