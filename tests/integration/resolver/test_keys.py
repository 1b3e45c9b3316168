"""The service with installation keys: a wrong one ends its start, a database that is away does not end references."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from services.dev.platform import Platform, Process
from services.dev.platform.ports import free_port
from services.dev.platform.supervision import until_ready
from services.resolver.custody.standing import SCHEMA
from shared import topics
from shared.bus.cloudevents import decode
from shared.crypto.signing import SigningKey
from shared.custody import Kek, save_new_kek
from shared.custody.directory import key_path
from shared.events.custody import KeyAction, KeyChange
from tests.fakes.gateway import TARGET, FakeGateway, values
from tests.integration.resolver.conftest import World, forget_custody, secret_of
from tests.integration.resolver.test_process import process
from tests.integration.resolver.topics import reading
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)


@dataclass(slots=True)
class Installation:
    """A database and a directory of keys for resolvers, and operators' tokens."""

    world: World
    url: str = field(repr=False)
    keys: Path
    logs: Path

    def key(self) -> str:
        """A new key in the directory; its id."""
        self.keys.mkdir(exist_ok=True)
        kek = Kek.generate()
        save_new_kek(key_path(self.keys, kek.key_id), kek)
        return kek.key_id

    def resolver(self, **more: str) -> tuple[Process, str]:
        settings = {
            "KEYFOB_RESOLVER_KEYS_DIR": str(self.keys),
            "KEYFOB_RESOLVER_DATABASE_URL": self.url,
            "KEYFOB_ADMIN_ISSUER": self.world.issuer.url,
            "KEYFOB_ADMIN_JWKS_URI": self.world.issuer.jwks_uri,
        }
        return process(self.world, self.logs, **(settings | more))

    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.world.issuer.token('olga', ['keyfob-operators'])}"}

    async def resolves(self, url: str) -> bool:
        """Whether a reference resolves there."""
        key = SigningKey.load(self.world.settings.resolver.signing_key_file).verify_key
        gateway = FakeGateway(self.world.gateway.identity, url, key)
        question = gateway.question(self.world.token("hospital-b"))
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + TARGET, data=question.body, headers=question.headers) as reply,
        ):
            opened = values(gateway.opened(question, await reply.read())) if reply.status == 200 else {}
        return opened == {"DB_URL": secret_of("hospital-b").encode()}


@pytest_asyncio.fixture(loop_scope="session")
async def installation(world: World, platform: Platform, tmp_path: Path) -> AsyncIterator[Installation]:
    await forget_custody(world.kafka)
    name = f"keys_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    url = platform.postgres.dsn(name, name).replace("postgresql://", "postgresql+asyncpg://")
    yield Installation(world, url, tmp_path / "keys", tmp_path)
    await platform.postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_keys_are_rotated_over_http_and_the_acts_are_published(installation: Installation) -> None:
    first = installation.key()
    resolver, url = installation.resolver()
    resolver.start()
    try:
        await until_ready(resolver, f"{url}/readyz", within_s=30)
        second = installation.key()
        async with aiohttp.ClientSession(headers=installation.operator()) as session:
            async with session.post(f"{url}/v1/keys/rotations", json={}) as reply:
                assert reply.status == 202, await reply.text()

            async def finished() -> bool:
                async with session.get(f"{url}/v1/keys") as reply:
                    return bool((await reply.json())["rotation"]["finished_at"])

            await until(finished, within=15)
            async with session.post(f"{url}/v1/keys/retirements", json={"key_id": first}) as reply:
                assert [one["state"] for one in (await reply.json())["keys"]] == ["retired", "current"]
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/keys") as reply:
            assert reply.status == 401
        assert await installation.resolves(url)

        async def said() -> list[tuple[KeyAction, str, str]]:
            async with reading(installation.world.kafka, topics.CUSTODY_CHANGES) as reader:
                told = [decode(message, KeyChange) for message in await reader.all()]
            return [(one.action, one.key_id, one.actor.subject) for one in told if one.key_id in {first, second}]

        async def all_said() -> bool:
            return len(await said()) == 4

        await until(all_said, within=15)
        assert await said() == [
            (KeyAction.MADE_CURRENT, first, "resolver-1"),
            (KeyAction.MADE_CURRENT, second, "olga"),
            (KeyAction.REWRAPPED, second, "resolver-1"),
            (KeyAction.RETIRED, first, "olga"),
        ]
    finally:
        await resolver.stop()


async def test_a_wrong_key_ends_the_process_with_one_sentence_and_references_go_on_without_keys(
    installation: Installation,
) -> None:
    right = installation.key()
    resolver, url = installation.resolver()
    resolver.start()
    await until_ready(resolver, f"{url}/readyz", within_s=30)
    await resolver.stop()
    key_path(installation.keys, right).unlink()
    wrong = installation.key()
    (installation.logs / "resolver.log").unlink()
    resolver, _ = installation.resolver()
    resolver.start()
    await until(lambda: not resolver.running, within=30)
    assert resolver.returncode == 78
    lines = (installation.logs / "resolver.log").read_text().splitlines()
    assert lines[-1].startswith("keyfob: ")
    assert f"not given: {right} (given: {wrong})" in lines[-1]
    assert "Traceback" not in "\n".join(lines)
    # Losing the key is no reason to lose references: whoever says so goes on without local values.
    without, url = installation.resolver(KEYFOB_RESOLVER_KEYS_DIR="")
    without._env.pop("KEYFOB_RESOLVER_KEYS_DIR")
    without.start()
    try:
        await until_ready(without, f"{url}/readyz", within_s=30)
        assert await installation.resolves(url)
        async with (
            aiohttp.ClientSession(headers=installation.operator()) as session,
            session.get(f"{url}/v1/keys") as reply,
        ):
            assert reply.status == 503
            assert "References resolve" in (await reply.json())["detail"]
    finally:
        await without.stop()


async def test_a_database_that_is_away_takes_no_reference_away(installation: Installation) -> None:
    installation.key()
    resolver, url = installation.resolver(
        KEYFOB_RESOLVER_DATABASE_URL=f"postgresql+asyncpg://keyfob@127.0.0.1:{free_port()}/none"
    )
    resolver.start()
    try:
        await until_ready(resolver, f"{url}/readyz", within_s=30)
        assert await installation.resolves(url)
        async with (
            aiohttp.ClientSession(headers=installation.operator()) as session,
            session.get(f"{url}/v1/keys") as reply,
        ):
            assert reply.status == 503
    finally:
        await resolver.stop()
