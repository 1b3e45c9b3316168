"""What all routes share: who may, where things are, how answers are written."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from services.policy.api.views import Namer
from services.policy.commands.choices import Person
from services.policy.commands.outcomes import Created, Outcome
from services.policy.commands.refusals import RefusalAllowance
from services.policy.domain.ports import Catalog, Ledger, Page, Reading, Receipt
from services.policy.instance_ca import InstanceCa
from services.policy.subjects import Subjects
from shared.administration import AdminGuard
from shared.errors import BadRequest
from shared.events.catalog import ReferenceRecord
from shared.events.policy import PolicyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Handout:
    """What every instance is told when it is let in; none of it is secret."""

    policy_key: str
    resolver_keys: tuple[str, ...]
    resolver_urls: tuple[str, ...]
    broker: str
    notifier: str | None
    https_urls: tuple[str, ...] = ()
    """Where instances of the profile `https` find resolvers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The ports that routes use."""

    ledger: Ledger
    catalog: Catalog
    guard: AdminGuard
    subjects: Subjects
    handout: Handout
    instance_ca: InstanceCa | None = None
    """Signs the certificates of instances in the profile `https`; None where there are none."""
    refusals: RefusalAllowance = field(default_factory=RefusalAllowance)
    allow_http: bool = False
    """Whether keys of identity providers may come over plain http: in development mode."""
    allowed_variables: frozenset[str] = frozenset()
    """Reserved variables that definitions of servers may have."""

    async def reference(self, text: str) -> ReferenceRecord:
        """The reference that a body names; `BadRequest` if the catalog has none."""
        found = await self.catalog.find(text)
        if found is None:
            raise BadRequest("There is no reference by the name or id in `reference`.")
        return found

    async def said(self, work: Reading, outcome: Outcome[PolicyRecord]) -> Response:
        """The answer to a command: its receipt and the entity, with names; 201 for a new one.

        Made inside the work, so that it can't fail after the commit.
        """
        status = 201 if isinstance(outcome, Created) else 200
        entity = await self._view(work, outcome.record)
        return written(receipt_body(outcome.receipt) | {"entity": entity}, status)

    async def shown(self, reading: Reading, record: PolicyRecord) -> Response:
        """One entity, with names."""
        return written(await self._view(reading, record))

    async def listed(self, reading: Reading, page: Page[PolicyRecord]) -> Response:
        """A page of entities, with names."""
        # One look-up of names for the whole page, in the same view: no entry shows a name of another moment.
        namer = await Namer.of(reading, self.catalog, page.items)
        items = [namer.view(record).model_dump(mode="json") for record in page.items]
        return written({"items": items, "next": page.next})

    async def _view(self, reading: Reading, record: PolicyRecord) -> dict[str, object]:
        namer = await Namer.of(reading, self.catalog, [record])
        return namer.view(record).model_dump(mode="json")

    async def person(self, token: str) -> Person:
        """The subject that a token speaks for, by the identity providers that policy itself has."""
        return await self.subjects.person(token)


def receipt_body(receipt: Receipt) -> dict[str, object]:
    """A receipt as JSON members."""
    return {
        "entity_id": receipt.entity_id,
        "seq": receipt.seq,
        "event_id": receipt.event_id,
        "ended": list(receipt.ended),
    }


def written(body: dict[str, object] | BaseModel, status: int = 200) -> Response:
    """A JSON answer."""
    content = body.model_dump_json() if isinstance(body, BaseModel) else orjson.dumps(body)
    return Response(content, status, media_type="application/json")
