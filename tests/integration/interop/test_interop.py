"""Whoever has only the document interoperates: enrols, resolves, obeys, and is believed."""

from __future__ import annotations

import ast
import asyncio
import json
import time
from pathlib import Path

import aiohttp
import pytest

from tests.integration.interop.conftest import FIELD, PROFILE, SERVER, Installation
from tests.integration.interop.formats import Keys
from tests.integration.interop.second_client import Refused, SecondClient
from tests.waiting import until

pytestmark = pytest.mark.timeout(180)
ALLOWED = {"aiohttp", "aiokafka", "cryptography", "tests.integration.interop.formats"}


@pytest.mark.parametrize("name", ["formats.py", "second_client.py"])
def test_the_second_client_shares_no_code_with_keyfob(name: str) -> None:
    path = Path(__file__).with_name(name)
    tree = ast.parse(path.read_text())
    modules = {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    foreign = {one for one in modules if one.split(".")[0] in {"services", "shared", "tests", "."}} - ALLOWED
    assert not foreign
    assert len(path.read_text().splitlines()) <= 350


async def test_it_resolves_and_a_rotation_and_a_revocation_are_obeyed_and_proved(installation: Installation) -> None:
    async with installation.client("foreign-1") as client:
        token = installation.token()
        lease = (await client.resolve(token, SERVER))[FIELD]
        async with client.using(lease) as value:
            assert value == b"first"
            cause = await installation.rotation(lambda: installation.put("second"))
            # What is running may finish, and says so meanwhile.
            await installation.stands(cause, client, "fenced")
            assert lease.value == b"first"
        await installation.stands(cause, client, "dropped")
        assert lease.value is None
        assert not client.leases

        newer = (await client.resolve(token, SERVER, PROFILE))[FIELD]
        async with client.using(newer) as value:
            assert value == b"second"
            revoked = await installation.call("DELETE", "policy", f"/v1/grants/{installation.grant}")
            # Not when its use ends: at once.
            await installation.stands(revoked["event_id"], client, "dropped")
            assert newer.value is None
        with pytest.raises(Refused) as refused:
            await client.resolve(token, SERVER)
        assert (refused.value.status, refused.value.kind) == (404, "not-available")
        await installation.allow()


async def test_the_record_has_who_it_was_for_and_how_each_lease_ended(installation: Installation) -> None:
    async with installation.client("foreign-2") as client:
        lease = (await client.resolve(installation.token(), SERVER))[FIELD]
    # It left: its last receipt says that nothing is held any more.

    accesses = {("resolver:reference:authorise", ""), ("resolver:reference:release", "")}
    wanted = accesses | {("gateway:lease:end", "session")}

    async def told() -> bool:
        found = await installation.records(instance=client.id)
        # Accesses and receipts stand in topics of their own: which is recorded first nobody knows.
        return wanted <= {(one["action"], one["reason"]) for one in found}

    await until(told, within=20)
    alarms = await installation.records(action="notifier:alert:raise")
    assert not [one for one in alarms if one["reason"] in {"stream-contradicted", "receipt-forged"}]
    assert lease.value is None


async def test_a_token_works_once_but_for_the_same_keys(installation: Installation) -> None:
    url, token = installation.stack.environments.url("policy"), await installation.enrolment("foreign-3")
    first, thief = SecondClient("foreign-3"), SecondClient("foreign-3", Keys())
    await first.enrol(url, token)
    known = first.id
    await first.enrol(url, token)
    assert first.id == known
    with pytest.raises(Refused) as refused:
        await thief.enrol(url, token)
    assert refused.value.status == 401


async def test_a_request_that_is_repeated_is_refused_everywhere_and_flagged(installation: Installation) -> None:
    async with installation.client("foreign-5") as client, aiohttp.ClientSession() as http:
        first, second = client.enrolled["bootstrap"]["resolver"].split(",")
        token, body = installation.token(), json.dumps({"server": SERVER}).encode()

        def assertion(url: str) -> str:
            return client.keys.assertion(client.id, url, body, token, now=time.time())

        async def ask(url: str, asserted: str) -> int:
            headers = {"Authorization": f"Bearer {token}", "Keyfob-Assertion": asserted}
            async with http.post(f"{url}/v1/resolve", data=body, headers=headers) as answer:
                return answer.status

        async def answered(url: str) -> str:
            asserted = assertion(url)
            return asserted if await ask(url, asserted) == 200 else ""

        # Each hears of a new instance in its own time.
        await until(lambda: answered(second), within=20)
        used = await until(lambda: answered(first), within=20)
        assert [await ask(first, used), await ask(second, used)] == [401, 401]

        async def flagged() -> bool:
            found = await installation.records(instance=client.id, action="notifier:alert:raise")
            return [one["reason"] for one in found] == ["assertion-seen-twice"] * 2

        async def refused() -> bool:
            found = await installation.records(instance=client.id, action="resolver:reference:refuse")
            reasons = {"assertion-invalid:replayed", "assertion-invalid:another-request"}
            return reasons <= {one["reason"] for one in found}

        await until(flagged, within=20)
        await until(refused, within=20)


async def test_a_banned_client_is_refused_and_its_lease_ends(installation: Installation) -> None:
    async with installation.client("foreign-4") as client:
        lease = (await client.resolve(installation.token(), SERVER))[FIELD]
        await installation.call("POST", "policy", f"/v1/instances/{client.id}/ban")
        # No convergence waits for it: what it says is not believed any more.
        await until(lambda: lease.value is None, within=10)
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(client.resolve(installation.token(), SERVER), timeout=20)
        assert refused.value.kind == "assertion-invalid"
