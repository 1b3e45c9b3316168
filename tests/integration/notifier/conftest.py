"""A notifier in this process on a real database and a broker of its own: topics belong to one history."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest_asyncio

from services.dev.platform import Platform
from services.notifier.app import SCHEMA, build
from services.notifier.settings import NotifierSettings
from shared import topics
from shared.events.catalog import ReferenceState
from shared.events.changes import Actor, Detection, PolicyAction, PolicyChange, VaultChange, VaultChangeKind
from shared.replica import Replica
from shared.serving import Background
from tests.fakes.authorities import now
from tests.fakes.stages import Ground, ground
from tests.waiting import until

TIGHT = {"gateway_bound_s": 3.0, "resolver_bound_s": 1.5, "clock_allowance_s": 0.0, "settle_every_s": 0.02}
"""Bounds that a test can wait for."""


@dataclass(slots=True)
class Running:
    """One replica at work."""

    notifier: Replica
    http: httpx2.AsyncClient

    async def get(self, path: str, *, expect: int = 200, **query: Any) -> Any:
        answer = await self.http.get(path, params=query)
        assert answer.status_code == expect, (answer.status_code, answer.text)
        return answer.json()

    async def convergence(self, event_id: str, *, wait_s: float = 10.0) -> Any:
        return await self.get("/v1/convergence", event_id=event_id, wait_s=wait_s)

    async def noted(self, event_id: str) -> Any:
        """The notice about an event, as soon as it is noted, converged or not."""
        return await until(lambda: self.convergence(event_id, wait_s=0), within=10)


@dataclass(slots=True)
class Stage(Ground):
    """Whoever else speaks on the bus, and notifiers on it."""

    @asynccontextmanager
    async def notifier(self, **settings: Any) -> AsyncIterator[Running]:
        """A replica that is ready."""
        fields = {"database_url": self.database_url, "database_pool": 5, **TIGHT, **settings}
        app, notifier = build(self.common, NotifierSettings(**fields), self.guard(), Background())
        async with self.serving(app, notifier.readiness) as http:
            yield Running(notifier, http)

    async def rotate(
        self, *, seq: int = 1, reference: str = "reference/1", state: str = "active", traceparent: str | None = None
    ) -> VaultChange:
        """A rotation, as sync tells of it."""
        change = VaultChange(
            id=f"change/{secrets.token_hex(8)}",
            seq=seq,
            kind=VaultChangeKind.ROTATED,
            reference_id=reference,
            reference_name="hospital-a/db-url",
            source_id="source/1",
            version="2",
            previous_version="1",
            state=ReferenceState(state),
            detected_by=Detection.FEED,
            changed_at=now(),
            detected_at=now(),
        )
        await self.bus.send(change, key=change.reference_id, traceparent=traceparent)
        return change

    async def change_policy(self, *ended: str, seq: int, kind: str = "grant") -> PolicyChange:
        """A change that ended these, as policy tells of it."""
        change = PolicyChange(
            id=f"change/{secrets.token_hex(8)}",
            seq=seq,
            action=PolicyAction.DELETED,
            entity_kind=kind,
            entity_id=ended[0] if ended else "profile/1",
            ended=ended,
            actor=Actor(idp="idp/1", subject="ada"),
            at=now(),
        )
        await self.bus.send(change, key=change.entity_id)
        return change

    async def offset_of(self, notice_id: str) -> int:
        """Where a notice stands first."""
        return min(one.offset for one in await self.bus.all_of(topics.NOTICES) if one.event_id == notice_id)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(platform: Platform) -> AsyncIterator[Stage]:
    """Topics and a schema of this test's own; no notifier runs yet."""
    async with ground(platform, schema=SCHEMA) as own:
        yield Stage(own.bus, own.policy, own.common, own.dsn, own.issuer)
