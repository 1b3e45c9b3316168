"""The transit engine of a real OpenBao, furnished for one test, and a token that may do nothing else."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import hvac

from services.dev.platform import Platform
from shared.config import Mode
from shared.custody.providers.transit import TransitProvider
from shared.egress import Egress, Origin
from tests.fakes.loopback import write_secret

KEYS = ("keyfob", "another")


def administrator(platform: Platform) -> hvac.Client:
    root = json.loads((platform.directory / "openbao" / "keys.json").read_text())["root"]
    return hvac.Client(platform.openbao.url, token=root)


@asynccontextmanager
async def transit_provider(platform: Platform, service: str, folder: Path) -> AsyncIterator[TransitProvider]:
    """A mount of its own with two keys, by a token with the two rights that the provider's documentation names."""
    admin, mount = administrator(platform), f"transit-{secrets.token_hex(4)}"
    await asyncio.to_thread(_furnish, admin, mount)
    rules = [
        f'path "{mount}/{operation}/{key}" {{ capabilities = ["update"] }}'
        for operation in ("encrypt", "decrypt")
        for key in (*KEYS, "missing")
    ]
    await platform.openbao.create_policy(mount, "\n".join(rules))
    write_secret(folder / "token", await platform.openbao.token_for([mount]))
    async with Egress(mode=Mode.DEVELOPMENT) as egress:
        origin = Origin.parse(platform.openbao.url, mode=Mode.DEVELOPMENT)
        yield TransitProvider(service, origin, KEYS[0], folder / "token", egress, mount)
    await asyncio.to_thread(admin.sys.disable_secrets_engine, mount)


def _furnish(admin: hvac.Client, mount: str) -> None:
    admin.sys.enable_secrets_engine("transit", path=mount)
    for key in KEYS:
        admin.secrets.transit.create_key(name=key, mount_point=mount)
