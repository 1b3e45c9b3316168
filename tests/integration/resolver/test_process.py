"""The service as a process of its own: it starts, says when it is ready, answers over HTTP and ends in order."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from services.dev.platform import Process, plain_environment
from services.dev.platform.ports import LOOPBACK, free_port
from services.dev.platform.supervision import until_ready
from shared import topics
from shared.bus.cloudevents import decode
from shared.crypto.signing import SigningKey
from shared.events.access import Phase
from shared.events.receipts import ResolverReceipt
from tests.fakes.gateway import TARGET, FakeGateway, values
from tests.integration.resolver.conftest import World, secret_of
from tests.integration.resolver.topics import reading, streams
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).resolve().parents[3]


def process(world: World, directory: Path, **more: str) -> tuple[Process, str]:
    own, common = world.settings.resolver, world.settings.common
    port = free_port()
    environment = plain_environment(
        KEYFOB_MODE="development",
        KEYFOB_KAFKA_BOOTSTRAP=common.kafka_bootstrap,
        KEYFOB_KAFKA_REPLICATION="1",
        KEYFOB_POLICY_KEY=common.policy_key,
        KEYFOB_CATALOG_KEY=common.catalog_key,
        KEYFOB_RESOLVER_HOST=LOOPBACK,
        KEYFOB_RESOLVER_PORT=str(port),
        KEYFOB_RESOLVER_SIGNING_KEY_FILE=str(own.signing_key_file),
        KEYFOB_RESOLVER_CREDENTIALS_DIR=str(own.credentials_dir),
        **more,
    )
    command = (sys.executable, "-m", "services", "serve", "resolver")
    made = Process("resolver", command, env=environment, log=directory / "resolver.log", cwd=ROOT)
    return made, f"http://{LOOPBACK}:{port}"


async def test_it_answers_over_http_and_says_goodbye(world: World, tmp_path: Path) -> None:
    resolver, url = process(world, tmp_path, KEYFOB_RESOLVER_REPLICA_ID="resolver-process")
    resolver.start()
    try:
        await until_ready(resolver, f"{url}/readyz", within_s=30)
        key = SigningKey.load(world.settings.resolver.signing_key_file).verify_key
        gateway = FakeGateway(world.gateway.identity, url, key)
        question = gateway.question(world.token("hospital-b"))
        async with aiohttp.ClientSession() as session:
            async with session.post(url + TARGET, data=question.body, headers=question.headers) as reply:
                assert reply.status == 200
                assert values(gateway.opened(question, await reply.read())) == {
                    "DB_URL": secret_of("hospital-b").encode()
                }
            async with session.post(url + TARGET, data=b"x" * 70_000) as reply:
                assert reply.status == 413
            async with session.get(f"{url}/openapi.json") as reply:
                assert TARGET in (await reply.json())["paths"]
    finally:
        await resolver.stop()
    # The server hands the signal on once everything is in order, so that whoever sent it sees it.
    assert resolver.returncode in {0, -signal.SIGTERM}
    async with reading(world.kafka, topics.RECEIPTS) as receipts:
        said = [decode(message, ResolverReceipt) for message in await receipts.all()]
    assert [one.stopping for one in said if one.replica_id == "resolver-process"][-1]
    async with reading(world.kafka, topics.ACCESS) as access:
        (own,) = [
            told
            for stream, told in streams(await access.all()).items()
            if stream.startswith("access/resolver-process/")
        ]
    assert [record.phase for record in own] == [Phase.AUTHORISED, Phase.RELEASED]
    log = (tmp_path / "resolver.log").read_text()
    assert secret_of("hospital-b") not in log


async def test_without_a_fresh_tick_it_refuses_and_is_not_ready(world: World, tmp_path: Path) -> None:
    resolver, url = process(world, tmp_path, KEYFOB_RESOLVER_TICK_BOUND_S="2.5")
    resolver.start()
    try:
        await until_ready(resolver, f"{url}/readyz", within_s=30)
        async with world.turn, aiohttp.ClientSession() as session:
            # Nobody ticks while we hold the turn: silence is noticed.
            async def refuses() -> bool:
                async with session.get(f"{url}/readyz") as reply:
                    return "policy-tick-old" in json.dumps(await reply.json())

            await until(refuses, within=15, every=0.1)
        await until_ready(resolver, f"{url}/readyz", within_s=15)
    finally:
        await resolver.stop()


async def test_a_misconfigured_one_ends_with_a_sentence(world: World, tmp_path: Path) -> None:
    missing = tmp_path / "no-such.key"
    resolver, _ = process(world, tmp_path)
    resolver._env["KEYFOB_RESOLVER_SIGNING_KEY_FILE"] = str(missing)
    resolver.start()
    await until(lambda: not resolver.running, within=30)
    assert resolver.returncode == 78
    log = (tmp_path / "resolver.log").read_text()
    assert log.startswith("keyfob: KEYFOB_RESOLVER_SIGNING_KEY_FILE")
    assert "Traceback" not in log
