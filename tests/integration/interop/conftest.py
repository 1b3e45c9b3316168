"""The whole of Keyfob as processes of their own, and a second client that knows none of its code."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio

from services.dev.stack import SOURCE, Stack
from tests.integration.interop.second_client import SecondClient
from tests.waiting import until

SERVER, FIELD, PROFILE, REFERENCE = "patients-db", "DB_URL", "hospital-a", "hospital-a/db-url"


@dataclass(slots=True)
class Installation:
    """A stack with one server, one profile and one reference."""

    stack: Stack
    grant: str = ""

    async def call(self, method: str, service: str, path: str, body: Any = None) -> Any:
        return await self.stack.call(method, service, path, **({} if body is None else {"body": body}))

    def token(self) -> str:
        return self.stack.issuer.token("agent-a", ["staff"], ttl_s=3600)

    async def put(self, value: str) -> None:
        """The value goes into the secret manager, and nowhere else."""
        await self.stack.platform.openbao.put(REFERENCE, {"value": value})

    async def furnish(self) -> None:
        await self.put("first")
        place = {"provider": "kv2", "origin": self.stack.platform.openbao.url, "mount": "secret"}
        await self.call("POST", "sync", "/v1/sources", {"name": SOURCE, "place": place})
        run = await self.call("POST", "sync", "/v1/syncs", {"source": SOURCE})
        while run["state"] == "running":
            run = await self.stack.call("GET", "sync", f"/v1/syncs/{run['id']}", query={"wait_s": 5})
        definition = {
            "transport": "stdio",
            "command": "/opt/never-run",
            "fields": [{"inject": "environment", "name": FIELD}],
        }
        await self.call("POST", "policy", "/v1/servers", {"name": SERVER, "definition": definition, "owner": "alice"})
        issuer = self.stack.issuer.url
        idp = {"name": "development", "issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
        await self.call("POST", "policy", "/v1/idps", idp)
        await self.call("POST", "policy", "/v1/profiles", {"name": PROFILE})
        await self.call("POST", "policy", "/v1/mappings", {"profile": PROFILE, "idp": "development", "group": "staff"})
        await self.allow()
        binding = {"profile": PROFILE, "server": SERVER, "field": FIELD, "reference": REFERENCE}
        await self.call("POST", "policy", "/v1/bindings", binding)

    async def allow(self) -> None:
        granted = await self.call("POST", "policy", "/v1/grants", {"profile": PROFILE, "reference": REFERENCE})
        self.grant = granted["entity_id"]

    async def enrolment(self, name: str) -> str:
        body = {"name": name, "allowed_servers": ["*"], "expires_in_s": 600}
        return str((await self.call("POST", "policy", "/v1/enrolments", body))["token"])

    @asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[SecondClient]:
        """A client that is enrolled, reads notices and may resolve."""
        client = SecondClient(name)
        await client.enrol(self.stack.environments.url("policy"), await self.enrolment(name))
        await client.start()
        task = asyncio.create_task(client.run())
        try:
            await until(lambda: client.ready() or task.done(), within=20)
            yield client
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def standing(self, event_id: str, client: SecondClient) -> str | None:
        """Where the client stands on what an event ended, as convergence shows it."""
        query = {"event_id": event_id, "wait_s": 0}
        shown = await self.stack.call("GET", "notifier", "/v1/convergence", query=query)
        states = {one["id"]: one["state"] for one in (shown or {"members": []})["members"]}
        return states.get(client.id)

    async def stands(self, event_id: str, client: SecondClient, state: str) -> None:
        async def there() -> bool:
            return await self.standing(event_id, client) == state

        await until(there, within=10, what=f"{client.name} {state}")

    async def rotation(self, done: Callable[[], Awaitable[None]]) -> str:
        """Do something that rotates; the event that the notice names."""
        before = {one["cause_id"] for one in await self.stack.every("notifier", "/v1/notices")}
        await done()

        async def news() -> str:
            found = [one["cause_id"] for one in await self.stack.every("notifier", "/v1/notices")]
            return next((cause for cause in found if cause not in before), "")

        return await until(news, within=20, what="a notice of the rotation")

    async def records(self, **query: Any) -> list[dict[str, Any]]:
        return await self.stack.every("audit", "/v1/records", **query)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def installation() -> AsyncIterator[Installation]:
    """One for all tests of this folder."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-interop-"))
    async with Stack(directory, durable=False) as stack:
        running = Installation(stack)
        await running.furnish()
        yield running
    shutil.rmtree(directory)
