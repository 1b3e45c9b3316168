"""The admin API of sync, below `/v1`: sources, references, manual syncs, coverage.

Annotations stay real here: they name guards that are made where the routes are added.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import structlog
from fastapi import APIRouter, Depends, FastAPI, Query
from pydantic import AfterValidator

from services.sync.api.models import (
    ConnectedSource,
    CoverageItem,
    CoverageList,
    EditedReference,
    Page,
    ReceiptBody,
    ReferenceBody,
    ReferenceItem,
    SourceBody,
    SourceItem,
    SyncBody,
    SyncItem,
    Text,
    storable,
)
from services.sync.domain.commits import Edit
from services.sync.domain.naming import check_name, check_text
from services.sync.domain.ports import Receipt, ReferenceView, Register, Views, Wanted
from services.sync.handlers.connections import Connections
from services.sync.handlers.runs import RunDesk
from shared.administration import AdminGuard, Administrator, Role
from shared.errors import NotAvailable
from shared.events.catalog import ReferenceState

_log = structlog.get_logger()

LONGEST_WAIT_S: Final = 30.0
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str, Query(max_length=256), AfterValidator(storable)]


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes work with."""

    views: Views
    register: Register
    connections: Connections
    runs: RunDesk


def add_routes(app: FastAPI, desk: Desk, guard: AdminGuard) -> None:
    """Let `app` serve the admin API."""
    router = APIRouter(prefix="/v1")
    _add_sources(router, desk, guard)
    _add_references(router, desk, guard)
    _add_syncs(router, desk, guard)
    app.include_router(router)


def _add_sources(router: APIRouter, desk: Desk, guard: AdminGuard) -> None:
    reader = Depends(guard.requires(Role.AUDITOR, Role.OPERATOR))
    admin = guard.requires()

    @router.get("/sources", dependencies=[reader])
    async def list_sources(limit: Limit = 100, after: After = "") -> Page[SourceItem]:
        """All connected sources, by name."""
        records = await desk.views.sources(after=after, limit=limit)
        return Page(
            items=[SourceItem.of(record) for record in records],
            next=records[-1].name if len(records) == limit else None,
        )

    @router.post("/sources", status_code=201)
    async def connect_source(body: SourceBody, who: Annotated[Administrator, Depends(admin)]) -> ConnectedSource:
        """Connect a source, after a look at whether it can be worked with. The same again changes nothing."""
        connected = await desk.connections.connect(body.name, **body.place.model_dump())
        _log.info("source-connected", source=body.name, by=who.subject.subject, idp=who.subject.idp_id)
        return ConnectedSource(**(SourceItem.of(connected.record).model_dump() | _receipt(connected.receipt)))

    @router.delete("/sources/{source_id:path}")
    async def disconnect_source(source_id: Text, who: Annotated[Administrator, Depends(admin)]) -> ReceiptBody:
        """Forget a source: all of its references become unusable, in one commit."""
        receipt = await desk.connections.disconnect(source_id)
        _log.info("source-disconnected", source=receipt.entity_id, by=who.subject.subject, idp=who.subject.idp_id)
        return ReceiptBody(**_receipt(receipt))

    @router.get("/coverage", dependencies=[reader])
    async def show_coverage() -> CoverageList:
        """How well each source is covered by its feed and its sweeps."""
        return CoverageList(items=[CoverageItem.of(view) for view in await desk.views.coverage()])


def _add_references(router: APIRouter, desk: Desk, guard: AdminGuard) -> None:
    reader = Depends(guard.requires(Role.AUDITOR, Role.OPERATOR))
    admin = guard.requires()

    @router.get("/references", dependencies=[reader])
    async def list_references(
        limit: Limit = 100,
        after: After = "",
        source: Text | None = None,
        state: ReferenceState | None = None,
        name: Text | None = None,
    ) -> Page[ReferenceItem]:
        """References of all sources, by name. `name` is part of a name, whatever its case."""
        wanted = Wanted(source=source, state=state, name=name)
        found = await desk.views.references(wanted, after=after, limit=limit)
        return Page(
            items=[ReferenceItem.of(view) for view in found],
            next=found[-1].name if len(found) == limit else None,
        )

    @router.get("/references/{reference_id:path}", dependencies=[reader])
    async def show_reference(reference_id: Text) -> ReferenceItem:
        """One reference."""
        return ReferenceItem.of(await _view(desk, reference_id))

    @router.put("/references/{reference_id:path}")
    async def edit_reference(
        reference_id: Text, body: ReferenceBody, who: Annotated[Administrator, Depends(admin)]
    ) -> EditedReference:
        """Rename a reference, or say who owns it and what it is for."""
        edit = Edit(**body.model_dump())
        _check(edit)
        # Checked above, outside the transaction: a refusal takes no lock that looks wait for.
        edited = await desk.register.edit(reference_id, edit)
        if edited is None:
            raise NotAvailable
        _log.info("reference-edited", reference=reference_id, by=who.subject.subject, idp=who.subject.idp_id)
        item = ReferenceItem.of(await _view(desk, reference_id))
        return EditedReference(**(item.model_dump() | _receipt(edited.receipt)))


def _add_syncs(router: APIRouter, desk: Desk, guard: AdminGuard) -> None:
    reader = Depends(guard.requires(Role.AUDITOR, Role.OPERATOR))
    operator = guard.requires(Role.OPERATOR)

    @router.post("/syncs", status_code=202)
    async def start_sync(body: SyncBody, who: Annotated[Administrator, Depends(operator)]) -> SyncItem:
        """Look at one source or all of them now."""
        names = await desk.connections.names(body.source)
        return SyncItem.of(await desk.runs.ask(names, asked_by=who.subject.subject))

    @router.get("/syncs/{run_id:path}", dependencies=[reader])
    async def show_sync(run_id: Text, wait_s: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = 0) -> SyncItem:
        """How far a sync is: at once, or when it has ended, or after `wait_s` seconds."""
        run = await desk.runs.wait(run_id, within_s=wait_s)
        if run is None:
            raise NotAvailable
        return SyncItem.of(run)


async def _view(desk: Desk, reference_id: str) -> ReferenceView:
    view = await desk.views.reference(reference_id)
    if view is None:
        raise NotAvailable
    return view


def _check(edit: Edit) -> None:
    if edit.name is not None:
        check_name(edit.name)
    if edit.owner is not None:
        check_text(edit.owner, of="owner")
    if edit.description is not None:
        check_text(edit.description, of="description")


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {"entity_id": receipt.entity_id, "event_id": receipt.event_id, "seq": receipt.seq}
