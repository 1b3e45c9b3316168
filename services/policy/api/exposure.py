"""Who could use a reference now."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.responses import Response

from services.policy.api.desk import Desk, written
from services.policy.commands.exposure import exposed
from services.policy.domain.exposures import Way
from shared.administration import Role
from shared.errors import NotAvailable
from shared.events.contract import Id


class Named(BaseModel):
    """An entity by id and name."""

    id: Id
    name: str


class GroupView(BaseModel):
    """A group of an identity provider."""

    idp_id: Id
    idp_name: str
    group: str


class PlaceView(BaseModel):
    """A field of a server. `bound`: the reference goes there by a binding; else a subject may choose it there."""

    server: Named
    field: str
    bound: bool


class WayView(BaseModel):
    """One grant and what it opens."""

    grant_id: Id
    profile: Named
    groups: tuple[GroupView, ...]
    places: tuple[PlaceView, ...]
    instances: tuple[Named, ...]
    open_now: bool
    starts_at: datetime | None
    ends_at: datetime | None
    labels: dict[str, str]
    destination: str | None


class WhoCould(BaseModel):
    """Everybody who could use a reference at `at`, by what policy has committed up to `at`."""

    reference: Named
    at: datetime
    ways: tuple[WayView, ...]


def routes(desk: Desk) -> APIRouter:
    """The route, under `/v1`."""
    router = APIRouter()
    reader = Depends(desk.guard.requires(Role.AUDITOR, Role.OPERATOR))

    @router.get("/v1/who-could", dependencies=[reader], response_model=WhoCould)
    async def who_could(reference: Annotated[str, Query(max_length=256, description="name or id")]) -> Response:
        found = await desk.catalog.find(reference)
        if found is None:
            raise NotAvailable
        async with desk.ledger.read() as reading:
            ways = await exposed(reading, found.id)
            # Profiles and identity providers of all ways in one look-up, in the view that the ways were computed from.
            ids = {one for way in ways for one in (way.grant.profile_id, *(group.idp_id for group in way.groups))}
            names = await reading.names(ids)
        reached = Named(id=found.id, name=found.name)
        return written(WhoCould(reference=reached, at=reading.now, ways=tuple(_view(way, names) for way in ways)))

    return router


def _view(way: Way, names: dict[str, str]) -> WayView:
    grant = way.grant
    places = [(server, field, True) for server, field in way.bound]
    places += [(server, field, False) for server, field in way.choosable]
    return WayView(
        grant_id=grant.id,
        profile=Named(id=grant.profile_id, name=names.get(grant.profile_id, "")),
        groups=tuple(
            GroupView(idp_id=one.idp_id, idp_name=names.get(one.idp_id, ""), group=one.group) for one in way.groups
        ),
        places=tuple(
            PlaceView(server=Named(id=server.id, name=server.name), field=field, bound=bound)
            for server, field, bound in places
        ),
        instances=tuple(Named(id=one.id, name=one.name) for one in way.instances),
        open_now=way.open_now,
        starts_at=grant.starts_at,
        ends_at=grant.ends_at,
        labels=grant.labels,
        destination=grant.destination,
    )
