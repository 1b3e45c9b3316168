"""What the steps of the story share: the stack, the hospitals, the agents, and looking at what happened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.dev.demo.agents import Agent
from services.dev.demo.hospitals import Hospital
from services.dev.demo.narration import Narrator, expect, until
from services.dev.stack import Stack

SERVER = "patients-db"
FIELD = "DB_URL"
REGIONS = {"gateway-1": "north", "gateway-2": "south"}
"""Gateway → the label that it is enrolled with."""
GATEWAYS = tuple(REGIONS)
CONVERGENCE_S = 10.0
_MILLISECONDS = 1000


@dataclass(slots=True)
class Stage:
    """Everything that is on stage."""

    stack: Stack
    narrator: Narrator
    tool: Path
    """The folder of programs of the third-party MCP server."""
    hospitals: list[Hospital] = field(default_factory=list)
    agents: dict[str, Agent] = field(default_factory=dict)
    grants: dict[str, str] = field(default_factory=dict)
    """Profile → id of its grant."""
    tokens: list[str] = field(default_factory=list, repr=False)

    def url(self, gateway: str, context: str = "") -> str:
        """The MCP address of the server at a gateway, for a context if one is named."""
        base = f"{self.stack.environments.url(gateway)}/mcp/{SERVER}"
        return f"{base}/{context}" if context else base

    def agent(self, name: str, groups: list[str]) -> Agent:
        """A new agent with a token from the development issuer."""
        token = self.stack.issuer.token(name, groups, ttl_s=3600)
        self.tokens.append(token)
        self.agents[name] = Agent(name, token)
        return self.agents[name]

    async def notice_for(self, reference_name: str, version: str) -> dict[str, Any]:
        """The convergence of the rotation of a reference to `version`, once its notice is out."""
        reference = await self.reference(reference_name)

        wanted = {"reference_id": reference["id"], "current": version}

        async def look() -> dict[str, Any] | None:
            newest = await self.stack.call("GET", "notifier", "/v1/notices", query={"limit": 5})
            for item in newest["items"]:
                answer = await self.convergence(item["cause_id"], wait_s=0)
                if answer and wanted in answer["notice"]["superseded"]:
                    return answer
            return None

        return await until(look, within_s=CONVERGENCE_S, sentence=f"a notice for {reference_name} version {version}")

    async def convergence(self, event_id: str, *, wait_s: float) -> dict[str, Any] | None:
        """Who has acted on what an event caused; waits up to `wait_s` seconds for all."""
        query = {"event_id": event_id, "wait_s": wait_s}
        answer: dict[str, Any] | None = await self.stack.call("GET", "notifier", "/v1/convergence", query=query)
        return answer

    async def converged(self, event_id: str, *, within_s: float = CONVERGENCE_S) -> dict[str, Any]:
        """The convergence of an event's notice, once everybody has acted."""

        async def look() -> dict[str, Any] | None:
            answer = await self.convergence(event_id, wait_s=1)
            return answer if answer and answer["converged"] else None

        return await until(look, within_s=within_s, sentence="everybody acted on the notice")

    async def reference(self, name: str) -> dict[str, Any]:
        """One reference of the catalog, by name."""
        for item in await self.stack.every("sync", "/v1/references"):
            if item["name"] == name:
                return item
        expect(False, f"the catalog has {name}")
        # For the type checker, which does not know that the line above never returns.
        raise AssertionError

    def show_members(self, answer: dict[str, Any]) -> None:
        """Who has acted on a notice and who has not, as a table."""
        columns = {"member": "name", "kind": "kind", "state": "state", "at": "at", "until": "until"}
        self.narrator.records(columns, answer["members"])


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def milliseconds(self) -> float:
        """How long ago that was."""
        return (time.monotonic() - self._began) * _MILLISECONDS
