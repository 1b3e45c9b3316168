"""The ordeal: a furnished stack that works all the time, and the means to hurt it and to see what came of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from services.cli.connection import CommandFailed
from services.dev.demo.agents import Agent
from services.dev.demo.stage import Stage
from services.dev.platform import Process
from services.gateway.client.resolving import Wanted
from shared import topics
from tests.chaos import evidence
from tests.chaos.clients import Client, client
from tests.chaos.evidence import Kept
from tests.waiting import until

PATH = "chaos/token"
SPARE = "chaos/spare"
PROFILE = "chaos"
SERVER = "probe"
FIELD = "TOKEN"
TELLER = Path(__file__).parents[1] / "fakes" / "stdio_server.py"
BACK_WITHIN_S = 60.0
ACTED_WITHIN_S = 60.0
"""Longer than any bound by which a silent resolver expires; a machine that is busy with other things is slow."""
AGENT_S = 30.0


@dataclass(slots=True)
class Ordeal:
    """One installation under attack."""

    stage: Stage
    clients: list[Client]
    agent: Agent
    reference_id: str
    chance: random.Random
    value: str = field(repr=False)
    version: int = 1
    spare_grant: str = ""
    _other_notices: set[str] = field(default_factory=set)

    def process(self, name: str) -> Process:
        return self.stage.stack.supervisor.processes[name]

    async def call(self, method: str, service: str, path: str, **more: Any) -> Any:
        return await self.stage.stack.call(method, service, path, **more)

    async def rotate(self) -> None:
        """Write a new value with an ordinary client; nobody touches Keyfob."""
        value = secrets.token_urlsafe(24)
        self.version = await self.stage.stack.platform.openbao.put(PATH, {"value": value})
        self.value = value

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Every client resolves all the time."""
        tasks = [asyncio.create_task(each.keep_busy()) for each in self.clients]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def kill_in_the_middle(self, name: str, *more: Coroutine[Any, Any, None]) -> float:
        """SIGKILL a service while a rotation and resolves are in flight.

        Returns the milliseconds between the start of those and the kill.
        """
        process, pid, pause_ms = self.process(name), self.process(name).pid, self.chance.uniform(0, 60)
        flying = asyncio.gather(self.rotate(), *(each.burst() for each in self.clients), *more)
        # The experiment's one random moment, not a wait for anything.
        await asyncio.sleep(pause_ms / 1000)
        process.kill()
        await flying
        await until(lambda: process.running and process.pid != pid, within=BACK_WITHIN_S, what=f"{name} is back")
        await self.stage.stack.supervisor.until_ready(name, within_s=BACK_WITHIN_S)
        return pause_ms

    async def everybody_acted(self) -> None:
        """The newest rotation has its notice, and every member has dropped the old value or provably can't use it."""
        notice = await until(self._notice, within=ACTED_WITHIN_S, what=f"a notice for version {self.version}")
        await until(
            lambda: self._converged(notice["cause_id"]),
            within=ACTED_WITHIN_S,
            what=f"everybody acted on the notice for version {self.version}",
        )

    async def everybody_has_the_new_value(self) -> None:
        """From now on nothing but the new value is given to anybody."""
        for each in self.clients:
            got = await until(each.attempt, within=ACTED_WITHIN_S, what="a resolve is answered")
            assert got == (self.value, str(self.version))

    def nothing_strange_was_seen(self) -> None:
        """Refusals were those that trouble excuses, and nobody waited for ever."""
        for each in self.clients:
            assert not each.strange
            assert each.slowest_s < each.patience_s

    async def tell(self, gateway: str) -> str:
        """The value that the MCP server behind a gateway was given, as an agent learns it."""
        url = f"{self.stage.stack.environments.url(gateway)}/mcp/{SERVER}"
        async with asyncio.timeout(AGENT_S), self.agent.connect(url) as session:
            result = await session.client.call_tool("environment", {})
        environment: dict[str, str] = json.loads(getattr(result.content[0], "text", ""))
        # Backwards: the server tells it so, since as it is it would be redacted.
        return environment[FIELD][::-1]

    async def try_to_tell(self, gateway: str) -> None:
        """The same while anything may happen to the gateway."""
        with suppress(Exception):
            await self.tell(gateway)

    def children_of(self, name: str) -> list[psutil.Process]:
        """The processes that a service started."""
        return psutil.Process(self.process(name).pid).children(recursive=True)

    async def grant_spare(self) -> None:
        body = {"profile": PROFILE, "reference": SPARE}
        self.spare_grant = (await self.call("POST", "policy", "/v1/grants", body=body))["entity_id"]

    async def revoke_spare(self) -> None:
        """Remove the spare grant; the answer may never come."""
        with suppress(CommandFailed):
            await self.call("DELETE", "policy", f"/v1/grants/{self.spare_grant}")

    async def spare_is_revoked(self) -> None:
        """The grant is gone; if the call never arrived, by calling again."""
        grants = await self.stage.stack.every("policy", "/v1/grants")
        if self.spare_grant in {each["id"] for each in grants}:
            await self.call("DELETE", "policy", f"/v1/grants/{self.spare_grant}")

    async def _notice(self) -> dict[str, Any] | None:
        with suppress(CommandFailed):
            for item in (await self.call("GET", "notifier", "/v1/notices", query={"limit": 20}))["items"]:
                if item["id"] in self._other_notices:
                    continue
                answer = await self.call("GET", "notifier", f"/v1/notices/{item['id']}")
                notice: dict[str, Any] = answer["notice"]
                if {"reference_id": self.reference_id, "current": str(self.version)} in notice["superseded"]:
                    return notice
                self._other_notices.add(item["id"])
        return None

    async def _converged(self, cause_id: str) -> bool:
        with suppress(CommandFailed):
            query = {"event_id": cause_id, "wait_s": 5}
            answer = await self.call("GET", "notifier", "/v1/convergence", query=query)
            return answer is not None and answer["converged"] is True
        return False

    async def check_everything_that_was_written(self) -> None:
        """The rules that no crash may break, on all topics and the whole log."""
        found, records = await until(self._settled, within=90, every=0.5, what="audit has recorded everything")
        evidence.check_changes_are_announced_once(found)
        evidence.check_versions_follow(found, self.reference_id, self.version)
        told = [answer for each in self.clients for answer in each.resolvers.told]
        evidence.check_no_release_lacks_its_record(found[topics.ACCESS], told)
        evidence.check_streams_are_whole(found[topics.ACCESS])
        evidence.check_log(records, found[topics.AUDIT])

    async def _settled(self) -> tuple[dict[str, list[Kept]], list[dict[str, Any]]] | None:
        names = (*evidence.RECORDED, topics.NOTICES, topics.AUDIT)
        found = await evidence.read_all(self.stage.stack.environments.kafka, *names)
        records = await self.stage.stack.every("audit", "/v1/records")
        recorded = Counter((record["cause_topic"], record["cause_id"]) for record in records)
        settled = evidence.causes(found).keys() <= recorded.keys() and len(found[topics.AUDIT]) >= len(records)
        return (found, records) if settled else None


@asynccontextmanager
async def ordeal(stage: Stage) -> AsyncIterator[Ordeal]:
    """Two clients beside the stage's two gateways, all allowed to use one reference of their own."""
    stack, value = stage.stack, secrets.token_urlsafe(24)
    await stack.platform.openbao.put(PATH, {"value": value})
    await stack.platform.openbao.put(SPARE, {"value": secrets.token_urlsafe(24)})
    await _administer(stage)
    token = stack.issuer.token("tester", [f"staff-{PROFILE}"], ttl_s=4 * 3600)
    seed = int(os.environ.get("KEYFOB_CHAOS_SEED", "0")) or secrets.randbits(32)
    print(f"KEYFOB_CHAOS_SEED={seed}")
    async with AsyncExitStack() as running:
        clients = [
            await running.enter_async_context(client(stack, name, token=token, wanted=Wanted(SERVER)))
            for name in ("client-1", "client-2")
        ]
        reference = (await stage.reference(PATH))["id"]
        agent = stage.agent("chaos-agent", [f"staff-{PROFILE}"])
        yield Ordeal(stage, clients, agent, reference, random.Random(seed), value)  # noqa: S311 - repeatable, on purpose


async def _administer(stage: Stage) -> None:
    call = stage.stack.call
    run = await call("POST", "sync", "/v1/syncs", body={})
    while run["state"] == "running":
        run = await call("GET", "sync", f"/v1/syncs/{run['id']}", query={"wait_s": 5})
    field_of_server = {"inject": "environment", "name": FIELD}
    definition = {"transport": "stdio", "command": sys.executable, "args": [str(TELLER)], "fields": [field_of_server]}
    await call("POST", "policy", "/v1/servers", body={"name": SERVER, "definition": definition, "owner": "alice"})
    await call("POST", "policy", "/v1/profiles", body={"name": PROFILE})
    mapping = {"profile": PROFILE, "idp": "development", "group": f"staff-{PROFILE}"}
    await call("POST", "policy", "/v1/mappings", body=mapping)
    await call("POST", "policy", "/v1/grants", body={"profile": PROFILE, "reference": PATH})
    binding = {"profile": PROFILE, "server": SERVER, "field": FIELD, "reference": PATH}
    await call("POST", "policy", "/v1/bindings", body=binding)
