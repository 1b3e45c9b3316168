"""The same vault three times: in memory, and OpenBao for a token with few rights and for one with all that help."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import hvac
import pytest
import pytest_asyncio

from services.dev.platform import METADATA_ONLY, Platform
from services.sync.sources.credentials import CredentialFiles
from services.sync.sources.kv2 import Kv2Reader
from services.sync.sources.port import SourceReader
from shared.config import Mode
from shared.egress import Egress
from shared.events.catalog import KvSource
from tests.fakes.kv_source import FakeSource
from tests.fakes.loopback import free_port, write_secret

HELPFUL = (
    'path "secret/subkeys/*" { capabilities = ["read"] }\npath "secret/detailed-metadata/*" { capabilities = ["list"] }'
)


class Vault(Protocol):
    """A vault that tests can act on."""

    keys_visible: bool

    async def put(self, path: str, values: Mapping[str, str]) -> int: ...
    async def delete(self, path: str) -> None: ...
    async def undelete(self, path: str, version: int) -> None: ...
    async def destroy(self, path: str, version: int) -> None: ...
    async def forget(self, path: str) -> None: ...
    async def describe(self, path: str, **words: str) -> None: ...
    async def deny(self, path: str) -> None: ...


@dataclass(slots=True)
class RealVault:
    """OpenBao, below a folder of this test's own."""

    admin: hvac.Client
    prefix: str
    policy: str
    keys_visible: bool
    denied: list[str] = field(default_factory=list)

    async def put(self, path: str, values: Mapping[str, str]) -> int:
        answer = await self._do("create_or_update_secret", self._full(path), dict(values))
        return int(answer["data"]["version"])

    async def delete(self, path: str) -> None:
        await self._do("delete_latest_version_of_secret", self._full(path))

    async def undelete(self, path: str, version: int) -> None:
        await self._do("undelete_secret_versions", self._full(path), [version])

    async def destroy(self, path: str, version: int) -> None:
        await self._do("destroy_secret_versions", self._full(path), [version])

    async def forget(self, path: str) -> None:
        await self._do("delete_metadata_and_all_versions", self._full(path))

    async def describe(self, path: str, **words: str) -> None:
        await self._do("update_metadata", self._full(path), custom_metadata=words)

    async def expire(self, path: str, after: str) -> None:
        await self._do("update_metadata", self._full(path), delete_version_after=after)

    async def deny(self, path: str) -> None:
        below = f"{self.prefix}/{path}{'*' if path.endswith('/') else ''}"
        # Spelt out: of two patterns the one whose wildcard comes later wins, so `secret/+/…` would lose.
        self.denied += [f'path "secret/{kind}/{below}"' for kind in ("metadata", "subkeys", "detailed-metadata")]
        rules = "\n".join(f'{one} {{ capabilities = ["deny"] }}' for one in self.denied)
        await asyncio.to_thread(self.admin.sys.create_or_update_policy, self.policy, rules)

    async def _do(self, method: str, *arguments: Any, **more: Any) -> Any:
        return await asyncio.to_thread(getattr(self.admin.secrets.kv.v2, method), *arguments, **more)

    def _full(self, path: str) -> str:
        return f"{self.prefix}/{path}"


@dataclass(slots=True)
class Subject:
    """A vault and its reader; paths of the reader are relative to `prefix`."""

    vault: Vault
    reader: SourceReader
    away: SourceReader
    """Of a vault that nobody serves."""
    revoked: SourceReader
    """With a credential that the vault no longer knows."""
    prefix: str = ""

    def path(self, path: str) -> str:
        return f"{self.prefix}/{path}" if self.prefix else path


@pytest_asyncio.fixture(params=["fake", "fake-helpful", "openbao", "openbao-helpful"], loop_scope="session")
async def subject(request: pytest.FixtureRequest, platform: Platform, tmp_path: Path) -> AsyncIterator[Subject]:
    """Each backend in turn."""
    helpful = request.param.endswith("helpful")
    if request.param.startswith("fake"):
        source = FakeSource(keys_visible=helpful, lists_details=helpful)
        yield Subject(source, source, FakeSource(down="nobody listens"), FakeSource(down="refused"))
        return
    async with Egress(mode=Mode.DEVELOPMENT, timeout_s=5) as egress:
        yield await _real(platform, tmp_path, egress, helpful=helpful)


async def _real(platform: Platform, directory: Path, egress: Egress, *, helpful: bool) -> Subject:
    openbao = platform.openbao
    prefix, policy = f"contract-{secrets.token_hex(4)}", f"contract-{secrets.token_hex(4)}"
    await openbao.create_policy(f"{policy}-helpful", HELPFUL)
    token = await openbao.token_for([METADATA_ONLY, policy, *([f"{policy}-helpful"] if helpful else [])])
    root = json.loads((platform.directory / "openbao" / "keys.json").read_text())["root"]
    vault = RealVault(hvac.Client(openbao.url, token=root), prefix, policy, keys_visible=helpful)

    def reader(name: str, origin: str, presented: str = token) -> Kv2Reader:
        write_secret(directory / f"{name}.json", json.dumps({"origin": origin, "token": presented}))
        credentials = CredentialFiles(directory, mode=Mode.DEVELOPMENT)
        place = KvSource(origin=origin, prefix=prefix)
        return Kv2Reader(name, place, egress=egress, credentials=credentials, mode=Mode.DEVELOPMENT)

    nobody = f"http://127.0.0.1:{free_port()}"
    return Subject(
        vault, reader("there", openbao.url), reader("away", nobody), reader("revoked", openbao.url, "s.nothing"), prefix
    )
