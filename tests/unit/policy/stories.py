"""Small worlds for the tests of commands: one hospital, in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from services.policy.commands import assignments, foundations
from services.policy.commands.outcomes import addressed, delete
from services.policy.domain.drafts import BindingDraft, GrantDraft, IdpDraft, MappingDraft, ProfileDraft, ServerDraft
from services.policy.domain.ports import Receipt
from shared.errors import KeyfobError
from shared.events.catalog import ReferenceRecord
from shared.events.changes import Actor
from shared.events.definitions import EnvironmentField, HeaderField, HttpServer, StdioServer
from shared.events.policy import (
    BindingRecord,
    GrantRecord,
    IdpRecord,
    MappingRecord,
    PolicyRecord,
    ProfileRecord,
    ServerRecord,
)
from tests.fakes.policy_ledger import FakeLedger, FakeWork

ADA = Actor(idp="idp/administrators", subject="ada")
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
STDIO = StdioServer(command="/opt/mcp-alchemy", fields=(EnvironmentField(name="DB_URL"),))
HTTP = HttpServer(url="https://mcp.example.org/", fields=(HeaderField(name="KEY", header="X-Api-Key"),))

T = TypeVar("T")


def reference(name: str = "hospital-a/db-url") -> ReferenceRecord:
    return ReferenceRecord(
        id=f"reference/{abs(hash(name)):032x}",
        seq=1,
        revision=1,
        name=name,
        source_id="source/1",
        path=name,
        version="1",
        changed_at=NOON,
    )


@dataclass(slots=True)
class FakeCatalog:
    references: dict[str, ReferenceRecord] = field(default_factory=dict)

    def add(self, name: str) -> ReferenceRecord:
        made = reference(name)
        self.references[made.id] = made
        return made

    async def find(self, text: str) -> ReferenceRecord | None:
        found = [one for one in self.references.values() if text in {one.id, one.name}]
        return found[0] if found else None

    def by_id(self, reference_id: str) -> ReferenceRecord | None:
        return self.references.get(reference_id)

    def name_of(self, reference_id: str) -> str:
        return self.references[reference_id].name if reference_id in self.references else ""


@dataclass(slots=True)
class World:
    """A ledger, a catalog and short words for commands. Each call is a work of its own."""

    ledger: FakeLedger = field(default_factory=lambda: FakeLedger(now=NOON))
    catalog: FakeCatalog = field(default_factory=FakeCatalog)

    async def do(self, command: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        async with self.ledger.open(ADA) as work:
            return await command(work, *arguments)

    async def idp(self, name: str = "okta", issuer: str = "https://idp.example") -> IdpRecord:
        draft = IdpDraft(name=name, issuer=issuer, jwks_uri=issuer + "/jwks")
        return (await self.do(foundations.create_idp, draft)).record

    async def profile(self, name: str = "hospital-a") -> ProfileRecord:
        return (await self.do(foundations.create_profile, ProfileDraft(name=name))).record

    async def mapping(self, group: str = "agents-a", profile: str = "hospital-a") -> MappingRecord:
        draft = MappingDraft(idp="okta", group=group, profile=profile)
        return (await self.do(foundations.create_mapping, draft)).record

    async def server(self, name: str = "patients-db", definition: StdioServer | HttpServer = STDIO) -> ServerRecord:
        draft = ServerDraft(name=name, owner="it", definition=definition)
        return (await self.do(foundations.create_server, draft)).record

    async def grant(self, name: str = "hospital-a/db-url", profile: str = "hospital-a", **limits: Any) -> GrantRecord:
        known = await self.catalog.find(name) or self.catalog.add(name)
        draft = GrantDraft(profile=profile, reference=name, **limits)
        return (await self.do(assignments.create_grant, draft, known)).record

    async def binding(
        self,
        name: str = "hospital-a/db-url",
        profile: str = "hospital-a",
        server: str = "patients-db",
        field: str = "DB_URL",
    ) -> BindingRecord:
        known = await self.catalog.find(name)
        assert known is not None
        draft = BindingDraft(profile=profile, server=server, field=field, reference=name)
        return (await self.do(assignments.create_binding, draft, known)).record

    async def delete(self, model: type[PolicyRecord], text: str) -> Receipt:
        async with self.ledger.open(ADA) as work:
            return await delete(work, await addressed(work, model, text))

    async def hospital(self) -> None:
        """The whole of hospital A."""
        await self.idp()
        await self.profile()
        await self.mapping()
        await self.server()
        await self.grant()
        await self.binding()

    def living(self) -> list[PolicyRecord]:
        return [kept.record for kept in self.ledger.kept.values()]


async def refused(world: World, command: Callable[..., Awaitable[Any]], *arguments: Any) -> KeyfobError:
    """The error of a command that must be refused and must change nothing."""
    before = (world.ledger.seq, dict(world.ledger.kept))
    try:
        await world.do(command, *arguments)
    except KeyfobError as error:
        assert (world.ledger.seq, world.ledger.kept) == before
        return error
    raise AssertionError("it was not refused")


Work = FakeWork
