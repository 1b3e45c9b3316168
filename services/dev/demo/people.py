"""People of the story: the real `keyfob` command with a token of their own, and an agent that works for them."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from services.dev.demo.agents import Agent
from services.dev.demo.narration import expect
from services.dev.demo.stage import Stage
from services.dev.platform.processes import plain_environment
from services.dev.stack.layout import write_private

_ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at a terminal, with a token of their own."""

    agent: Agent
    connection: Path

    async def keyfob(self, *arguments: str, entering: str = "") -> str:
        """What the command prints; it must succeed. `entering` is what the person types where it asks."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services", *arguments),
            cwd=_ROOT,
            env=plain_environment(KEYFOB_CONNECTION=str(self.connection)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(entering.encode())
        expect(process.returncode == 0, f"`keyfob {' '.join(arguments[:2])}` succeeds, but: {err.decode()}")
        return out.decode()


def person(stage: Stage, name: str, groups: list[str]) -> Person:
    """Somebody new on stage, in these groups of the development issuer."""
    agent = stage.agent(name, groups)
    told = json.loads(stage.stack.layout.connection.read_text())
    folder = homes(stage)
    write_private(folder / f"{name}.token", agent.token)
    write_private(folder / f"{name}.json", json.dumps(told | {"token_file": str(folder / f"{name}.token")}))
    return Person(agent, folder / f"{name}.json")


def homes(stage: Stage) -> Path:
    """Where people keep their own tokens: nothing of Keyfob's."""
    return stage.stack.layout.root / "people"
