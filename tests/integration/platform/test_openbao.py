"""The embedded OpenBao: keeps its data, and its two policies allow what they say and no more."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hvac
import hvac.exceptions
import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from services.dev.platform import METADATA_ONLY, READ_VALUES, OpenBao, Platform, PlatformFailure
from services.dev.platform.ports import LOOPBACK, free_port
from tests.waiting import until


def client(openbao: OpenBao, token: str) -> hvac.Client:
    return hvac.Client(openbao.url, token=token)


def read(client: hvac.Client, path: str, version: int | None = None) -> dict[str, str]:
    answer = client.secrets.kv.v2.read_secret_version(path, version=version, raise_on_deleted_version=True)
    return dict(answer["data"]["data"])


@pytest.fixture
def openbao(platform: Platform) -> OpenBao:
    return platform.openbao


async def test_metadata_only_sees_names_and_versions(openbao: OpenBao) -> None:
    await openbao.put("met/a", {"x": "1"})
    assert await openbao.put("met/a", {"x": "2"}) == 2
    sync = client(openbao, await openbao.token_for([METADATA_ONLY]))
    assert "met/" in sync.secrets.kv.v2.list_secrets("")["data"]["keys"]
    assert sync.secrets.kv.v2.list_secrets("met")["data"]["keys"] == ["a"]
    assert sync.secrets.kv.v2.read_secret_metadata("met/a")["data"]["current_version"] == 2


async def test_metadata_only_cannot_read_a_value(openbao: OpenBao) -> None:
    await openbao.put("met/b", {"x": "1"})
    sync = client(openbao, await openbao.token_for([METADATA_ONLY]))
    for path in ("secret/data/met/b", "secret/subkeys/met/b", "secret/data/met/missing"):
        with pytest.raises(hvac.exceptions.Forbidden):
            sync.adapter.get(f"/v1/{path}")


async def test_metadata_only_cannot_change_anything(openbao: OpenBao) -> None:
    await openbao.put("met/c", {"x": "1"})
    sync = client(openbao, await openbao.token_for([METADATA_ONLY]))
    with pytest.raises(hvac.exceptions.Forbidden):
        sync.secrets.kv.v2.create_or_update_secret("met/c", {"x": "2"})
    with pytest.raises(hvac.exceptions.Forbidden):
        sync.secrets.kv.v2.update_metadata("met/c", custom_metadata={"a": "b"})
    with pytest.raises(hvac.exceptions.Forbidden):
        sync.secrets.kv.v2.delete_metadata_and_all_versions("met/c")


async def test_read_values_reads_and_does_nothing_else(openbao: OpenBao) -> None:
    await openbao.put("val/a", {"x": "1"})
    await openbao.put("val/a", {"x": "2"})
    resolver = client(openbao, await openbao.token_for([READ_VALUES]))
    assert read(resolver, "val/a") == {"x": "2"}
    assert read(resolver, "val/a", version=1) == {"x": "1"}
    with pytest.raises(hvac.exceptions.Forbidden):
        resolver.secrets.kv.v2.list_secrets("val")
    with pytest.raises(hvac.exceptions.Forbidden):
        resolver.secrets.kv.v2.create_or_update_secret("val/a", {"x": "3"})


async def test_versions_are_deleted_and_destroyed(openbao: OpenBao) -> None:
    resolver = client(openbao, await openbao.token_for([READ_VALUES]))
    for value in ("1", "2", "3"):
        await openbao.put("del/a", {"x": value})
    await openbao.delete("del/a")
    with pytest.raises(hvac.exceptions.InvalidPath):
        read(resolver, "del/a")
    await openbao.destroy("del/a", versions=[1])
    with pytest.raises(hvac.exceptions.InvalidPath):
        read(resolver, "del/a", version=1)
    assert read(resolver, "del/a", version=2) == {"x": "2"}
    await openbao.destroy("del/a")
    sync = client(openbao, await openbao.token_for([METADATA_ONLY]))
    with pytest.raises(hvac.exceptions.InvalidPath):
        sync.secrets.kv.v2.read_secret_metadata("del/a")


async def test_a_policy_of_ones_own_is_what_the_token_gets(openbao: OpenBao) -> None:
    await openbao.put("own/a", {"x": "1"})
    await openbao.put("own/b", {"x": "1"})
    await openbao.create_policy("one-path", 'path "secret/data/own/a" { capabilities = ["read"] }')
    narrow = client(openbao, await openbao.token_for(["one-path"], period="1h"))
    assert read(narrow, "own/a") == {"x": "1"}
    with pytest.raises(hvac.exceptions.Forbidden):
        read(narrow, "own/b")


async def test_data_tokens_and_address_survive_restart_and_crash(state_directory: Path) -> None:
    openbao = OpenBao(state_directory / "openbao")
    await openbao.start()
    await openbao.put("kept", {"x": "1"})
    token = await openbao.token_for([READ_VALUES])
    await openbao.stop()

    again = OpenBao(state_directory / "openbao")
    await again.start()
    assert again.url == openbao.url
    assert read(client(again, token), "kept") == {"x": "1"}

    await again.put("kept", {"x": "2"})
    again.kill()
    await again.start()
    assert read(client(again, token), "kept") == {"x": "2"}
    await again.stop()


async def test_data_whose_keys_are_lost_stays_and_the_failure_says_what_to_delete(state_directory: Path) -> None:
    openbao = OpenBao(state_directory / "openbao")
    await openbao.start()
    await openbao.stop()
    keys = state_directory / "openbao" / "keys.json"
    elsewhere = keys.rename(state_directory / "keys.json")
    try:
        with pytest.raises(PlatformFailure, match=rf"keys to openbao's data are lost: delete {keys.parent} to start"):
            await openbao.start()
    finally:
        await openbao.stop()
    elsewhere.rename(keys)
    await openbao.start()
    await openbao.stop()


async def test_keys_and_configuration_are_for_its_owner_only(platform: Platform) -> None:
    for name in ("keys.json", "config.hcl", "data", "audit.log"):
        assert stat.S_IMODE((platform.directory / "openbao" / name).stat().st_mode) & 0o077 == 0, name
    assert platform.openbao.process is not None
    assert "token" not in " ".join(psutil.Process(platform.openbao.process.pid).cmdline())


async def test_the_audit_file_has_the_request_and_not_the_value(openbao: OpenBao) -> None:
    await openbao.put("audited", {"x": "planted-value"})
    text = openbao.audit_log.read_text()
    assert '"path":"secret/data/audited"' in text
    assert "planted-value" not in text


class Webhook:
    """Receives what an HTTP audit device posts."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received: list[tuple[str | None, dict[str, Any]]] = []
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/audit"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/audit", self._receive)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        self.received.append((request.headers.get("Authorization"), json.loads(await request.read())))
        return web.Response(status=204)

    def writes_to(self, path: str) -> int:
        return sum(document["request"].get("path") == f"secret/data/{path}" for _, document in self.received)


@pytest_asyncio.fixture(loop_scope="session")
async def webhook() -> AsyncIterator[Webhook]:
    hook = Webhook()
    yield hook
    await hook.stop()


async def test_the_webhook_gets_every_request_with_its_credential_and_without_values(
    state_directory: Path, webhook: Webhook
) -> None:
    await webhook.start()
    openbao = OpenBao(state_directory / "openbao", audit_webhook=webhook.url, audit_authorization="Bearer of-the-feed")
    await openbao.start()
    await openbao.put("seen", {"x": "planted-value"})
    assert webhook.writes_to("seen") == 2  # request and response
    assert {authorization for authorization, _ in webhook.received} == {"Bearer of-the-feed"}
    assert "planted-value" not in str(webhook.received)
    assert "of-the-feed" not in (state_directory / "openbao" / "config.hcl").read_text()
    await openbao.stop()


async def test_a_webhook_that_is_down_stops_nothing_and_is_found_when_it_is_back(
    state_directory: Path, webhook: Webhook
) -> None:
    openbao = OpenBao(state_directory / "openbao", audit_webhook=webhook.url)
    await openbao.start()
    await openbao.put("unseen", {"x": "1"})
    await webhook.start()
    await until(lambda: openbao.put("seen", {"x": "1"}))
    assert webhook.writes_to("seen") == 2
    assert webhook.writes_to("unseen") == 0
    await openbao.stop()


async def test_a_webhook_can_move_and_change_its_credential(state_directory: Path, webhook: Webhook) -> None:
    before = OpenBao(state_directory / "openbao", audit_webhook="http://127.0.0.1:9/old", audit_authorization="a")
    await before.start()
    await before.stop()
    await webhook.start()
    for authorization in ("b", "c"):
        after = OpenBao(state_directory / "openbao", audit_webhook=webhook.url, audit_authorization=authorization)
        await after.start()
        webhook.received.clear()
        await after.put("seen", {"x": "1"})
        assert {seen for seen, _ in webhook.received} == {authorization}
        await after.stop()
