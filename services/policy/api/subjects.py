"""Routes for subjects themselves, with their own tokens: what they may use, and what they choose."""

# Without `from __future__ import annotations`: FastAPI reads the annotations of routes that are made in a function.

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from services.policy.api.desk import Desk, receipt_body, written
from services.policy.api.views import Changed, ChoiceView, Listing, ReceiptView
from services.policy.commands import choices
from services.policy.commands.choices import Person
from services.policy.domain.drafts import ChoiceDraft
from shared.administration import bearer_token
from shared.events.changes import Actor


class AssignedReference(BaseModel):
    """A name that the subject may use, and in which of its contexts."""

    reference: str
    contexts: tuple[str, ...]


def routes(desk: Desk) -> APIRouter:
    """The routes, under `/v1/me`."""
    router = APIRouter()

    async def authenticate(request: Request) -> Person:
        return await desk.person(bearer_token(request))

    me = Depends(authenticate)

    @router.get("/v1/me/references", response_model=Listing[AssignedReference])
    async def own_references(person: Annotated[Person, me]) -> Response:
        async with desk.ledger.read() as reading:
            found = await choices.assigned(reading, desk.catalog, person)
        items = [{"reference": one.reference, "contexts": list(one.contexts)} for one in found]
        return written({"items": items, "next": None})

    @router.get("/v1/me/choices", response_model=Listing[ChoiceView])
    async def own_choices(person: Annotated[Person, me]) -> Response:
        async with desk.ledger.read() as reading:
            return await desk.listed(reading, await choices.chosen(reading, person))

    @router.put("/v1/me/choices", response_model=Changed[ChoiceView])
    async def choose(draft: ChoiceDraft, person: Annotated[Person, me]) -> Response:
        # Refused without the lock that all changes wait for.
        async with desk.ledger.read() as reading:
            await choices.option(reading, desk.catalog, person, draft)
        async with desk.ledger.open(_actor(person)) as work:
            return await desk.said(work, await choices.choose(work, desk.catalog, person, draft))

    @router.delete("/v1/me/choices/{key:path}", response_model=ReceiptView)
    async def forget_choice(key: str, person: Annotated[Person, me]) -> Response:
        async with desk.ledger.read() as reading:
            await choices.own_choice(reading, person, key)
        async with desk.ledger.open(_actor(person)) as work:
            receipt = await choices.forget(work, person, key)
        return written(receipt_body(receipt))

    return router


def _actor(person: Person) -> Actor:
    return Actor(idp=person.idp_id, subject=person.subject)
