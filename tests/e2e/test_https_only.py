"""A gateway that has nothing but an HTTP library and a client certificate, on real services."""

from __future__ import annotations

import ast
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from rich.console import Console

from services.dev.demo.narration import Narrator
from services.dev.demo.stage import SERVER, Stage
from services.dev.demo.steps import opening
from services.dev.platform.ports import LOOPBACK
from services.dev.platform.tools import tool_environment
from services.dev.stack import Stack
from services.dev.stack.environments import RESOLVERS
from tests.e2e.test_command_line import Shell
from tests.fakes import plain_gateway
from tests.fakes.pki import Authority, authority
from tests.fakes.plain_gateway import PlainGateway
from tests.waiting import until

NAME = "plain-1"


class PlainStack(Stack):
    """A stack whose resolvers have a second door."""

    servers: Authority

    def _prepare(self) -> None:
        super()._prepare()
        files, environments = self.layout.root / "pki", self.environments
        files.mkdir(mode=0o700)
        instances, self.servers = authority(files, "instance-ca"), authority(files, "server-ca")
        keys = ",".join(self.layout.signing_key(name).verify_key.to_base64() for name in RESOLVERS)
        environments.deployments |= {name: {"KEYFOB_RESOLVER_KEYS": keys} for name in ("notifier", "audit")}
        for name in RESOLVERS:
            listener = self.servers.listener(name)
            environments.deployments[name] = {
                "KEYFOB_RESOLVER_HTTPS_CERTIFICATE": str(listener.certificate),
                "KEYFOB_RESOLVER_HTTPS_KEY": str(listener.key),
                "KEYFOB_RESOLVER_HTTPS_CLIENT_CA_FILE": str(instances.certificate),
                "KEYFOB_RESOLVER_HTTPS_PORT": str(environments.port(f"{name}/https")),
            }
        origins = (f"https://{LOOPBACK}:{environments.port(f'{name}/https')}" for name in RESOLVERS)
        environments.deployments["policy"] = {
            "KEYFOB_POLICY_HTTPS_URLS": ",".join(origins),
            "KEYFOB_POLICY_INSTANCE_CA_KEY_FILE": str(instances.key),
            "KEYFOB_POLICY_INSTANCE_CA_FILE": str(instances.certificate),
        }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def door() -> AsyncIterator[Stage]:
    """Two hospitals and the services, without any gateway of ours."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-e2e-"))
    tool = await tool_environment("mcp-alchemy")
    async with PlainStack(directory, durable=False) as stack:
        stage = Stage(stack, Narrator(stack.layout.logs, Console(file=StringIO(), width=160)), tool)
        await opening.open_hospitals(stage)
        await opening.administer(stage)
        yield stage


async def enrolled(stage: Stage, shell: Shell, name: str) -> PlainGateway:
    files = stage.stack.layout.root / "plain"
    files.mkdir(mode=0o700, exist_ok=True)
    token = files / f"{name}.token"
    ran = await shell.run("instance", "enrol", name, "--profile", "https", "--any-server", "--token-file", str(token))
    assert ran.code == 0, ran.err
    assert isinstance(stage.stack, PlainStack)
    gateway = PlainGateway(files, name, stage.stack.servers.certificate)
    await asyncio.to_thread(gateway.enrol, stage.stack.environments.url("policy"), token.read_text())
    return gateway


@asynccontextmanager
async def running(gateway: PlainGateway) -> AsyncIterator[None]:
    """Its two threads: one hears notices, one looks once a second at what is over."""

    async def looking() -> None:
        while gateway.alive:
            await asyncio.to_thread(gateway.look)
            await asyncio.sleep(1)

    following = asyncio.create_task(asyncio.to_thread(gateway.follow))
    look = asyncio.create_task(looking())
    try:
        yield
    finally:
        gateway.alive = False
        # The next tick wakes the one that hears.
        await asyncio.gather(following, look)


def test_such_a_gateway_is_a_hundred_lines_of_the_standard_library() -> None:
    text = Path(plain_gateway.__file__).read_text()
    modules = {
        name.name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for name in node.names
    }
    modules |= {
        str(node.module).split(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    }
    assert modules <= sys.stdlib_module_names
    assert len([line for line in text.splitlines() if line.strip()]) <= 100


async def test_it_resolves_hears_of_a_rotation_drops_and_is_seen_to_have_dropped(door: Stage) -> None:
    shell = Shell(door)
    gateway = await enrolled(door, shell, NAME)
    async with running(gateway):
        await until(lambda: gateway.ticked > 0, within=10)
        (listed,) = (await shell.run("instance", "list", "--json")).json
        assert (listed["name"], listed["profile"]) == (NAME, "https")
        hospital = door.hospitals[0]
        token = door.stack.issuer.token("plain-agent", [f"staff-{hospital.profile}"], ttl_s=600)
        status, _ = await asyncio.to_thread(gateway.resolve, token, SERVER)
        assert status == 200
        assert [value for _, value in gateway.held.values()] == [hospital.url.encode()]
        await hospital.rotate()
        answer = await door.notice_for(hospital.path, version="2")
        await door.converged(answer["notice"]["cause_id"])
        assert gateway.held == {}
        shown = (await shell.run("notice", "show", answer["notice"]["id"], "--json")).json
        states = {member["name"]: member["state"] for member in shown["members"]}
        assert states[NAME] == "dropped"
        assert (await asyncio.to_thread(gateway.resolve, token, SERVER))[0] == 200
        assert [value for _, value in gateway.held.values()] == [hospital.url.encode()]
        await recorded(door, gateway)


async def test_what_ended_while_its_stream_was_cut_it_hears_of_and_drops(door: Stage) -> None:
    gateway = await enrolled(door, Shell(door), "plain-cut")
    hospital = door.hospitals[1]
    async with running(gateway):
        await holding(door, gateway, hospital.profile)
        await door.stack.supervisor.stop(RESOLVERS[0])
        receipt = await door.stack.call("DELETE", "policy", f"/v1/grants/{door.grants.pop(hospital.profile)}")
        assert gateway.held
        await door.stack.supervisor.restart(RESOLVERS[0])
        await until(lambda: stands(door, gateway, receipt["event_id"], "dropped"), within=15, every=0.2)
        assert gateway.held == {}


async def test_it_fences_itself_when_no_tick_comes(door: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_gateway, "FENCE_S", 3)
    gateway = await enrolled(door, Shell(door), "plain-fence")
    notifier = door.stack.supervisor.processes["notifier"]
    async with running(gateway):
        token = await holding(door, gateway, door.hospitals[0].profile)
        notifier.suspend()
        try:
            await until(lambda: not gateway.held, within=8)
            assert (await asyncio.to_thread(gateway.resolve, token, SERVER))[0] == 200
            assert gateway.held == {}, "without ticks it takes nothing"
        finally:
            notifier.resume()
        await holding(door, gateway, door.hospitals[0].profile)


async def test_a_ban_ends_its_stream_and_its_say(door: Stage) -> None:
    shell = Shell(door)
    gateway = await enrolled(door, shell, "plain-banned")
    async with running(gateway):
        token = await holding(door, gateway, door.hospitals[0].profile)
        banned = (await shell.run("instance", "ban", gateway.name, "--wait-s", "0", "--json")).json

        async def refused() -> bool:
            return (await asyncio.to_thread(gateway.resolve, token, SERVER))[0] == 401

        await until(refused, within=2)
        place = gateway.place
        await asyncio.sleep(1.5)
        assert gateway.place == place, "it hears nothing more"
        # Nobody takes its word: it is waited for until its bound.
        assert await stands(door, gateway, banned["change"]["event_id"], "pending")


async def stands(stage: Stage, gateway: PlainGateway, event_id: str, state: str) -> bool:
    """Whether it stands so on what an event caused; others may have stopped, and are waited for."""
    answer = await stage.convergence(event_id, wait_s=0)
    members = () if answer is None else answer["members"]
    return [one["state"] for one in members if one["name"] == gateway.name] == [state]


async def holding(stage: Stage, gateway: PlainGateway, profile: str) -> str:
    """Have it hold a value; the subject's token."""
    token = stage.stack.issuer.token("plain-agent", [f"staff-{profile}"], ttl_s=600)

    async def has_it() -> bool:
        status, _ = await asyncio.to_thread(gateway.resolve, token, SERVER)
        return status == 200 and bool(gateway.held)

    await until(lambda: gateway.ticked > 0, within=10)
    await until(has_it, within=10, every=0.2)
    return token


async def recorded(stage: Stage, gateway: PlainGateway) -> None:
    async def look() -> bool:
        mine = await records(stage, gateway)
        return {"authorise", "release", "end"} <= {one["action"].rpartition(":")[2] for one in mine}

    await until(look, within=10)
    mine = await records(stage, gateway)
    assert all("profile https" in one["detail"] for one in mine if one["action"].startswith("resolver:"))


async def records(stage: Stage, gateway: PlainGateway) -> list[dict[str, Any]]:
    items = (await stage.stack.call("GET", "audit", "/v1/records", query={"limit": 1000}))["items"]
    return [one for one in items if one["instance_id"] == gateway.identity["instance_id"]]
