"""A replica's custody as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.integration.custody.conftest import House

# Its processes are forked from one that has imported all of this: that takes longer than their work does.
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def rewrapper(house: House, name: str, *, batch: int) -> BaseProcess:
    """Started; `kill` is SIGKILL."""
    process = FORKS.Process(target=_rewrap, args=(house.dsn, house.directory(), name, batch), daemon=True)
    process.start()
    return process


def _rewrap(dsn: str, keys: Path, name: str, batch: int) -> None:
    asyncio.run(_work(House(dsn, keys.parent), keys, name, batch))


async def _work(house: House, keys: Path, name: str, batch: int) -> None:
    async with house.replica(name, directory=keys, batch=batch):
        await asyncio.Event().wait()
