"""`/v1/values`: people enter what is theirs with their own token, administrators what is a profile's.

The body of a PUT is the value, byte for byte, as `application/octet-stream`. No route ever answers with one.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request

from services.resolver.custody.key_routes import NOT_KEPT
from services.resolver.custody.value_desk import Listed, ValueDesk
from services.resolver.custody.values import Entered
from shared.administration import AdminGuard, Role, bearer_token
from shared.crypto.secret import SecretBytes
from shared.errors import BadRequest, Unavailable
from shared.events.changes import Actor
from shared.events.custody import ValueAction

OCTETS: Final = "application/octet-stream"

Text = Annotated[str, Query(min_length=1, max_length=256)]


class ValueView(BaseModel):
    """A value: what it is for, whose, and when it was entered and last used."""

    server: str
    field: str
    profile: str | None
    """The profile that owns it; null for one's own."""
    set_at: datetime
    last_used_at: datetime | None


class ValuesView(BaseModel):
    """All that somebody may know of."""

    items: list[ValueView]


class EnteredView(BaseModel):
    """What was done; `event_id` is what `keyfob notice show` takes."""

    action: ValueAction
    server: str
    field: str
    at: datetime
    event_id: str


def value_routes(desk: ValueDesk | None, guard: AdminGuard) -> APIRouter:
    """The routes; without a desk they say why there are no values."""
    router = APIRouter(prefix="/v1/values", tags=["values"])
    found, administrator = _desk(desk), _Administrators(guard)

    @router.get(
        "", summary="What is there, by name; one's own and one's profiles', or one profile's for administrators"
    )
    async def read(request: Request, profile: Text | None = None) -> ValuesView:
        if profile is not None:
            await administrator.reading(request)
            return _views(await found().list_for(profile))
        return _views(await found().list_own(await found().person(bearer_token(request))))

    @router.put("", summary="Enter or replace a value", openapi_extra=_BODY)
    async def enter(request: Request, server: Text, field: Text, profile: Text | None = None) -> EnteredView:
        # Not a dependency of the route: without a profile the token is a person's, who needs no role.
        if profile is not None:
            by = await administrator.acting(request)
            with await _value(request) as value:
                return _view(await found().enter_for(profile, server, field, value, by=by), server, field)
        person = await found().person(bearer_token(request))
        with await _value(request) as value:
            return _view(await found().enter_own(person, server, field, value), server, field)

    @router.delete("", summary="Forget a value")
    async def delete(request: Request, server: Text, field: Text, profile: Text | None = None) -> EnteredView:
        if profile is not None:
            by = await administrator.acting(request)
            return _view(await found().delete_for(profile, server, field, by=by), server, field)
        person = await found().person(bearer_token(request))
        return _view(await found().delete_own(person, server, field), server, field)

    return router


_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
}


class _Administrators:
    """Who may act for a profile and who may look: the guard that all services have, asked where a profile is named."""

    def __init__(self, guard: AdminGuard) -> None:
        self._act = guard.requires(Role.ADMIN)
        self._look = guard.requires(Role.OPERATOR, Role.AUDITOR)

    async def acting(self, request: Request) -> Actor:
        return (await self._act(request)).actor

    async def reading(self, request: Request) -> None:
        await self._look(request)


async def _value(request: Request) -> SecretBytes:
    """The body. What the framework holds of it until the request ends is out of our hands."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != OCTETS:
        raise BadRequest(f"A value is sent as {OCTETS}.")
    return SecretBytes(await request.body())


def _desk(desk: ValueDesk | None) -> Callable[[], ValueDesk]:
    def found() -> ValueDesk:
        if desk is None:
            raise Unavailable(NOT_KEPT)
        return desk

    return found


def _views(found: list[Listed]) -> ValuesView:
    return ValuesView(
        items=[
            ValueView(
                server=one.server,
                field=one.field,
                profile=one.profile,
                set_at=one.set_at,
                last_used_at=one.last_used_at,
            )
            for one in found
        ]
    )


def _view(entered: Entered, server: str, field: str) -> EnteredView:
    return EnteredView(action=entered.action, server=server, field=field, at=entered.at, event_id=entered.event_id)
