"""A stack for end-to-end tests: every service a process of its own, as `keyfob demo` starts it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console

from services.dev.demo.narration import Narrator
from services.dev.demo.stage import Stage
from services.dev.demo.steps import opening
from services.dev.platform.tools import tool_environment
from services.dev.stack import Stack


@asynccontextmanager
async def empty_stage(overrides: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
    """A running stack without anything in it. Its logs are kept where pytest's failure report can name them."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-e2e-"))
    tool = await tool_environment("mcp-alchemy")
    heard = Console(file=StringIO(), width=160)
    settings = {"KEYFOB_TRACES_FILE": str(directory / "traces.jsonl"), **(overrides or {})}
    async with Stack(directory, overrides=settings, durable=False) as stack:
        yield Stage(stack, Narrator(stack.layout.logs, heard), tool)
    shutil.rmtree(directory)


@asynccontextmanager
async def furnished_stage(overrides: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
    """A stack with two gateways, two hospitals and everything assigned: the story after its third step."""
    async with empty_stage(overrides) as stage:
        await opening.start_everything(stage)
        await opening.open_hospitals(stage)
        await opening.administer(stage)
        yield stage
