"""A replica's custody as a process of its own, to be killed: `python -m … DSN KEYS_DIR NAME BATCH`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.integration.custody.conftest import House


async def main(keys: str, name: str, batch: str) -> None:
    house = House(os.environ["HOUSE_DSN"], Path(keys).parent)
    async with house.replica(name, directory=Path(keys), batch=int(batch)):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
