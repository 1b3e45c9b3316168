"""An audit service in this process on a real database and a broker of its own: topics belong to one history."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
import pytest_asyncio

from services.audit.app import SCHEMA, build
from services.audit.settings import AuditSettings
from services.dev.platform import Platform
from shared import topics
from shared.bus.cloudevents import decode, encode
from shared.events.access import FIRST_PREV, AccessItem, AccessRecord, AccessSubject, Phase
from shared.events.audit import AuditRecord
from shared.replica import Replica
from shared.serving import Background
from tests.fakes.authorities import Bus, FakeGateway, now
from tests.fakes.stages import Ground, ground
from tests.waiting import until

NOBODY = FakeGateway(None, "instance/1", "gateway-1")  # type: ignore[arg-type]


@dataclass(slots=True)
class FakeResolver:
    """One run of a resolver: numbers and chains its records as they are said."""

    bus: Bus
    stream: str = field(default_factory=lambda: f"access/resolver-1/{secrets.token_hex(4)}")
    n: int = 0
    prev: str = FIRST_PREV

    def record(self, phase: Phase, **more: Any) -> AccessRecord:
        """The next record of the stream; it counts as said."""
        fields: dict[str, Any] = {
            "id": f"{self.stream}/{self.n}",
            "stream": self.stream,
            "n": self.n,
            "prev": self.prev,
            "phase": phase,
            "at": now(),
            "resolution_id": f"resolution/{secrets.token_hex(8)}",
            "instance_id": NOBODY.id,
            "instance_name": NOBODY.name,
            "subject": AccessSubject(idp_id="idp/1", subject="agent-a", groups=("nurses-a",)),
            "server_id": "server/1",
            "server_name": "patients-db",
            "profile_id": "profile/1",
            "context": "hospital-a",
            "policy_seq": 9,
            "catalog_seq": 2,
        }
        record = AccessRecord.model_validate(fields | more)
        self.n, self.prev = record.n + 1, hashlib.sha256(record.to_json()).hexdigest()
        return record

    async def say(self, *records: AccessRecord) -> None:
        for record in records:
            await self.bus.post(encode(record, key=record.stream, source="test", event_id=record.id))

    async def release(self, *, expires_in: float = 900, **more: Any) -> tuple[AccessRecord, AccessRecord]:
        """An authorisation and its release, published."""
        resolution = f"resolution/{secrets.token_hex(8)}"
        lease = item(expires_in=expires_in)
        first = self.record(Phase.AUTHORISED, resolution_id=resolution, items=(lease,), **more)
        done = lease.model_copy(update={"version": "3"})
        second = self.record(Phase.RELEASED, resolution_id=resolution, items=(done,), **more)
        await self.say(first, second)
        return first, second


def item(*, reference: str = "reference/1", name: str = "hospital-a/db-url", expires_in: float = 900) -> AccessItem:
    return AccessItem(
        field="DB_URL",
        reference_id=reference,
        reference_name=name,
        source_id="source/1",
        lease_id=f"lease/{secrets.token_hex(8)}",
        expires_at=now() + timedelta(seconds=expires_in),
        rests_on=(reference, "grant/1"),
    )


@dataclass(slots=True)
class Running:
    """One replica at work."""

    audit: Replica
    http: httpx2.AsyncClient

    async def get(self, path: str, *, expect: int = 200, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == expect, (answer.status_code, answer.text)
        return answer.json()

    async def records(self, number: int, **query: Any) -> list[AuditRecord]:
        """The first records that match, as soon as there are `number` of them."""

        async def enough() -> list[AuditRecord]:
            page = await self.get("/v1/records", limit=1000, **query)
            found = [AuditRecord.model_validate(one) for one in page["items"]]
            return found if len(found) >= number else []

        return await until(enough, within=20, what=f"{number} records of {query or 'the log'}")

    async def leases(self, **query: Any) -> list[dict[str, Any]]:
        return list((await self.get("/v1/leases", limit=1000, **query))["items"])


@dataclass(slots=True)
class Stage(Ground):
    """Resolvers and gateways on the bus, and audit services."""

    @asynccontextmanager
    async def audit(self, **settings: Any) -> AsyncIterator[Running]:
        """A replica that is ready."""
        fields = {"database_url": self.database_url, "database_pool": 8, **settings}
        app, audit = build(self.common, AuditSettings(**fields), self.guard(), Background())
        async with self.serving(app, audit.readiness) as http:
            yield Running(audit, http)

    def resolver(self) -> FakeResolver:
        return FakeResolver(self.bus)

    async def published(self, number: int) -> list[AuditRecord]:
        """The topic `audit` as a consumer reads it, as soon as it holds `number` records."""

        async def enough() -> Sequence[AuditRecord]:
            found = [decode(message, AuditRecord) for message in await self.bus.all_of(topics.AUDIT)]
            return found if len(found) >= number else ()

        return list(await until(enough, within=20, what=f"{number} records in the topic"))


@pytest_asyncio.fixture(loop_scope="session")
async def stage(platform: Platform) -> AsyncIterator[Stage]:
    """Topics and a schema of this test's own; no audit service runs yet."""
    async with ground(platform, schema=SCHEMA) as own:
        yield Stage(own.bus, own.policy, own.common, own.dsn, own.issuer)
