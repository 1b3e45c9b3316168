"""From a write to OpenBao until fifty gateway clients have dropped the old value, through every service.

The whole installation runs as it does for everybody: OpenBao's audit device calls sync, sync reads the metadata and
commits, the relay, the notifier, the topic of notices, fifty clients in a few processes. Each client holds a lease on
each of the references that are rotated in turn, one every 200 ms. A figure counts from just before the write is sent
until the last of the fifty has wiped the value; `…_receipts_…` until the last receipt that says so is durable.

The floor is one raw hop of aiokafka in the same processes: from just before a message is sent until the last of fifty
plain consumers has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp

from services.dev.stack import SOURCE, Stack
from shared.bus.connection import KafkaSettings, ensure_topics
from shared.topics import Topic

CLIENTS: Final = int(os.environ.get("BENCH_CLIENTS", "50"))
PROCESSES: Final = 5
ROTATIONS: Final = int(os.environ.get("BENCH_ROTATIONS", "200"))
WARM_UP: Final = 10
EVERY_S: Final = 0.2
FLOOR_MESSAGES: Final = 100
SETTLE_S: Final = 5.0
"""After the last write, and before the first."""
PROFILE: Final = "bench"
FIELDS: Final = 60
"""Of one server; policy takes up to 64."""
FLOOR: Final = Topic(name="keyfob-bench-floor", partitions=1, kept=timedelta(days=1), ordered=True)
ROOT: Final = Path(__file__).resolve().parents[2]
NS: Final = 1e6


@dataclass(slots=True)
class Fleet:
    """The processes with the clients."""

    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def report(self) -> list[dict[str, dict[str, int]]]:
        """What every client saw, once their standard input is closed."""
        clients: list[dict[str, dict[str, int]]] = []
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            assert process.stdout is not None
            clients += json.loads(await process.stdout.readline())
        return clients


def field_names(count: int = ROTATIONS + WARM_UP) -> list[str]:
    """One field, and one reference, for each rotation."""
    return [f"R{number:04d}" for number in range(count)]


def server_of(name: str) -> str:
    """The server that a field belongs to."""
    return f"bench-{int(name[1:]) // FIELDS}"


async def run() -> dict[str, float]:
    """Measure; the figures by name."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-propagation-"))
    try:
        async with Stack(directory, report=_say) as stack:
            await _furnish(stack)
            async with _fleet(stack, directory) as fleet:
                await asyncio.sleep(SETTLE_S)
                sent = await _measure_floor(stack)
                written = await _rotate(stack)
                await asyncio.sleep(SETTLE_S)
                clients = await fleet.report()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return _figures(sent, written, clients)


def _figures(
    sent: dict[str, int], written: dict[str, int], clients: Sequence[dict[str, dict[str, int]]]
) -> dict[str, float]:
    floor = _spread(sent, [client["floor"] for client in clients])
    measured = {name: moment for name, moment in written.items() if name in field_names()[WARM_UP:]}
    dropped = _spread(measured, [client["dropped"] for client in clients])
    told = _spread(measured, [client["told"] for client in clients])
    _say(f"{len(dropped)} rotations reached all {len(clients)} clients, {len(measured) - len(dropped)} did not")
    return {
        "propagation_p50_ms": _percentile(dropped, 50),
        "propagation_p99_ms": _percentile(dropped, 99),
        "propagation_receipts_p50_ms": _percentile(told, 50),
        "propagation_floor_p50_ms": _percentile(floor, 50),
        "propagation_floor_p99_ms": _percentile(floor, 99),
        "propagation_missed": float(len(measured) - len(dropped)),
    }


def _spread(began: dict[str, int], arrived: Sequence[dict[str, int]]) -> list[float]:
    """Milliseconds until the last one had it, of everything that all of them had."""
    return [
        (max(one[name] for one in arrived) - moment) / NS
        for name, moment in began.items()
        if all(name in one for one in arrived)
    ]


def _percentile(figures: Sequence[float], percent: int) -> float:
    if len(figures) < 2:
        return float("nan")
    return statistics.quantiles(figures, n=100, method="inclusive")[percent - 1]


async def _measure_floor(stack: Stack) -> dict[str, int]:
    producer = _kafka(stack).producer()
    await producer.start()
    sent = {}
    try:
        for number in range(FLOOR_MESSAGES):
            sent[str(number)] = time.monotonic_ns()
            await producer.send_and_wait(FLOOR.name, str(number).encode())
            await asyncio.sleep(EVERY_S / 2)
    finally:
        await producer.stop()
    return sent


async def _rotate(stack: Stack) -> dict[str, int]:
    """One write every 200 ms, on the clock: a slow one does not make the next one late."""
    openbao = stack.platform.openbao
    rules = 'path "secret/data/*" { capabilities = ["create", "update"] }'
    await openbao.create_policy("bench-write", rules)
    headers = {"X-Vault-Token": await openbao.token_for(["bench-write"])}
    written: dict[str, int] = {}
    async with aiohttp.ClientSession(openbao.url, headers=headers) as session:
        began = time.monotonic()
        for number, name in enumerate(field_names()):
            await asyncio.sleep(max(0.0, began + number * EVERY_S - time.monotonic()))
            written[name] = time.monotonic_ns()
            body = {"data": {"value": f"rotated-{number}"}}
            async with session.post(f"/v1/secret/data/bench/{name}", json=body) as answer:
                answer.raise_for_status()
    return written


async def _furnish(stack: Stack) -> None:
    """As many references as rotations, bound to the fields of a few servers, for one group."""
    names = field_names()
    _say(f"making {len(names)} references, grants and bindings")
    openbao, call = stack.platform.openbao, stack.call
    for name in names:
        await openbao.put(f"bench/{name}", {"value": "first"})
    place = {"provider": "kv2", "origin": openbao.url, "mount": "secret"}
    await call("POST", "sync", "/v1/sources", body={"name": SOURCE, "place": place})
    run_ = await call("POST", "sync", "/v1/syncs", body={"source": SOURCE})
    while run_["state"] == "running":
        run_ = await call("GET", "sync", f"/v1/syncs/{run_['id']}", query={"wait_s": 5})
    issuer = stack.issuer.url
    await call("POST", "policy", "/v1/idps", body={"name": "dev", "issuer": issuer, "jwks_uri": f"{issuer}/jwks"})
    await call("POST", "policy", "/v1/profiles", body={"name": PROFILE})
    await call("POST", "policy", "/v1/mappings", body={"profile": PROFILE, "idp": "dev", "group": PROFILE})
    for server in sorted(set(map(server_of, names))):
        fields = [{"inject": "environment", "name": name} for name in names if server_of(name) == server]
        definition = {"transport": "stdio", "command": "/bin/true", "fields": fields}
        await call("POST", "policy", "/v1/servers", body={"name": server, "definition": definition, "owner": "bench"})
    for reference in await stack.every("sync", "/v1/references"):
        bound = {"profile": PROFILE, "reference": reference["name"]}
        await call("POST", "policy", "/v1/grants", body=bound)
        name = next(part for part in reference["name"].split("/") if part.startswith("R"))
        await call("POST", "policy", "/v1/bindings", body={**bound, "server": server_of(name), "field": name})


@asynccontextmanager
async def _fleet(stack: Stack, directory: Path) -> AsyncIterator[Fleet]:
    await ensure_topics(_kafka(stack), [FLOOR])
    names = [f"client-{number:02d}" for number in range(CLIENTS)]
    tokens = {}
    for name in names:
        body = {"name": name, "labels": {}, "allowed_servers": ["*"], "expires_in_s": 3600}
        tokens[name] = (await stack.call("POST", "policy", "/v1/enrolments", body=body))["token"]
    fleet = Fleet()
    _say(f"starting {CLIENTS} clients in {PROCESSES} processes")
    try:
        for number in range(PROCESSES):
            mine = names[number::PROCESSES]
            fleet.processes.append(await _start(stack, directory, mine, {name: tokens[name] for name in mine}))
        for process in fleet.processes:
            assert process.stdout is not None
            if await process.stdout.readline() != b"ready\n":
                message = "a process with clients did not get ready"
                raise RuntimeError(message)
        yield fleet
    finally:
        for process in fleet.processes:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _start(stack: Stack, directory: Path, names: list[str], tokens: dict[str, Any]) -> asyncio.subprocess.Process:
    config = {
        "names": names,
        "tokens": tokens,
        "directory": str(directory / "clients"),
        "policy": stack.environments.url("policy"),
        "resolvers": [stack.environments.url(name) for name in ("resolver-1", "resolver-2")],
        "kafka": stack.platform.broker.bootstrap,
        "subject_token": stack.issuer.token("bench-agent", [PROFILE], ttl_s=3600),
        "servers": sorted(set(map(server_of, field_names()))),
        "floor_topic": FLOOR.name,
    }
    path = directory / f"{names[0]}.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.propagation_clients",
        str(path),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )


def _kafka(stack: Stack) -> KafkaSettings:
    return KafkaSettings(bootstrap=stack.platform.broker.bootstrap, client_id="bench")


def _say(line: str) -> None:
    print(f"   {line}", flush=True)
