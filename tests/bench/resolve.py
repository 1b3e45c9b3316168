"""What a resolve costs beside what it can't do without: the read itself, and the read in parallel with a broker's ack.

In turn, against the same audited OpenBao and the same broker, with 64 distinct references, each kind by the same kind
of client (aiohttp, one process): a direct read, a read ∥ ack, a resolve. Requests of instances are signed before the
clock runs and answers opened after it stops: that is the gateway's work, not the resolver's (`crypto_costs` has it).
Every answer is opened and compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import orjson
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from services.dev.platform import READ_VALUES, Broker, DevIssuer, OpenBao, Process, broker_from_env, plain_environment
from services.dev.platform.ports import LOOPBACK, free_port
from services.dev.platform.private import write_private
from services.dev.platform.supervision import until_ready
from shared import topics
from shared.bus.connection import KafkaSettings, ensure_topics
from shared.crypto.signing import SigningKey
from tests.fakes.estate import Estate, publish_all
from tests.fakes.gateway import TARGET, Asked, FakeGateway, values

REFERENCES: Final = 64
ROUNDS: Final = 5
SINGLE: Final = 200
"""Requests of one round with one in flight."""
CROWD: Final = 64
MANY: Final = 1_500
"""Requests of one round with 64 in flight."""
RECORD_BYTES: Final = 1_200
"""What the floor's own record weighs: about as much as an access record."""
ROOT: Final = Path(__file__).resolve().parents[2]

Request = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Timed:
    """One kind of request: seconds of each with one in flight, and requests a second with 64."""

    name: str
    singles: list[float]
    rates: list[float]

    @property
    def p50_ms(self) -> float:
        """The median of all single requests."""
        return statistics.median(self.singles) * 1000

    @property
    def p99_ms(self) -> float:
        """99 of 100 single requests were faster."""
        return statistics.quantiles(self.singles, n=100)[98] * 1000

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)


async def one_by_one(request: Request, count: int) -> list[float]:
    """Seconds of each of `count` requests, one after the other."""
    taken = []
    for index in range(count):
        begun = time.perf_counter()
        await request(index)
        taken.append(time.perf_counter() - begun)
    return taken


async def crowd(request: Request, count: int) -> float:
    """Requests a second, `CROWD` in flight all the time."""
    numbers = iter(range(count))

    async def work() -> None:
        for index in numbers:
            await request(index)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CROWD)))
    return count / (time.perf_counter() - begun)


@dataclass(slots=True)
class Bench:
    """Everything that is running, and the three kinds of request."""

    session: aiohttp.ClientSession
    vault: str
    vault_token: str
    producer: AIOKafkaProducer
    resolver: str
    gateways: Sequence[FakeGateway]
    subjects: Sequence[str]
    prepared: list[tuple[FakeGateway, Asked]]
    answers: list[bytes | None]

    async def read(self, index: int) -> None:
        """The value itself, by an ordinary client."""
        url = f"{self.vault}/v1/secret/data/{_path(index % REFERENCES)}"
        async with self.session.get(url, headers={"X-Vault-Token": self.vault_token}) as answer:
            assert orjson.loads(await answer.read())["data"]["data"]["dsn"] == _value(index % REFERENCES)

    async def read_and_ack(self, index: int) -> None:
        """The floor of a resolve: the read, in parallel with a durable record."""
        acknowledged = await self.producer.send(topics.ACCESS, bytes(RECORD_BYTES), key=b"floor")
        await self.read(index)
        await acknowledged

    async def resolve(self, index: int) -> None:
        """The whole of it, as an instance asks."""
        _, asked = self.prepared[index]
        async with self.session.post(self.resolver + TARGET, data=asked.body, headers=asked.headers) as answer:
            assert answer.status == 200, await answer.read()
            self.answers[index] = await answer.read()

    @contextlib.contextmanager
    def prepared_for(self, count: int) -> Iterator[None]:
        """Sign `count` requests of several instances, then let them be sent.

        Afterwards open every answer: each must hold its own reference's value.
        """
        self.prepared = [
            (gateway, gateway.question(self.subjects[index % REFERENCES]))
            for index in range(count)
            for gateway in (self.gateways[index % len(self.gateways)],)
        ]
        self.answers = [None] * count
        yield
        for index, ((gateway, asked), answer) in enumerate(zip(self.prepared, self.answers, strict=True)):
            assert answer is not None
            assert values(gateway.opened(asked, answer)) == {"DB_URL": _value(index % REFERENCES).encode()}


def _path(number: int) -> str:
    return f"bench/hospital-{number:02}"


def _value(number: int) -> str:
    return f"postgresql://reader:{number:032x}@db.example/hospital-{number:02}"


def bench_estate(origin: str, issuer: str) -> Estate:
    """64 profiles with a reference each, all for the one server."""
    estate = Estate(origin=origin, issuer=issuer)
    estate.idp()
    estate.server()
    estate.source()
    for number in range(REFERENCES):
        estate.profile(f"hospital-{number:02}", group=f"staff-{number:02}")
        estate.reference(f"{_path(number)}/dsn")
        estate.grant(f"hospital-{number:02}", f"{_path(number)}/dsn")
        estate.binding(f"hospital-{number:02}", f"{_path(number)}/dsn")
    return estate


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Bench]:
    """Broker, audited OpenBao, issuer and resolver as processes of their own, the client in this one."""
    directory = Path(tempfile.mkdtemp(prefix="keyfob-bench-"))
    broker = broker_from_env(directory / "broker", logs=directory / "logs")
    vault = OpenBao(directory / "openbao", log=directory / "openbao.log")
    issuer = DevIssuer(directory / "issuer")
    serving = issuer.process(log=directory / "issuer.log")
    serving.start()
    try:
        await asyncio.gather(broker.start(), vault.start(), until_ready(serving, issuer.jwks_uri, within_s=20))
        for number in range(REFERENCES):
            await vault.put(_path(number), {"dsn": _value(number)})
        async with _asking(directory, broker, vault, issuer) as bench:
            yield bench
    finally:
        await asyncio.gather(broker.stop(), vault.stop(), serving.stop())
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def _asking(directory: Path, broker: Broker, vault: OpenBao, issuer: DevIssuer) -> AsyncIterator[Bench]:
    estate = bench_estate(vault.url, issuer.url)
    identities = [estate.instance(f"gateway-{number}") for number in range(4)]
    kafka = KafkaSettings(bootstrap=broker.bootstrap, client_id="bench")
    await ensure_topics(kafka, topics.TOPICS, replication=1)
    producer = kafka.producer()
    await producer.start()
    await publish_all(producer, estate.messages)
    token = await vault.token_for([READ_VALUES])
    (directory / "credentials").mkdir()
    write_private(directory / "credentials" / "vault.json", json.dumps({"origin": vault.url, "token": token}))
    resolver, url, key = resolver_process(directory, broker.bootstrap, estate)
    ticking = asyncio.create_task(keep_ticking(estate, producer))
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CROWD))
    try:
        resolver.start()
        await until_ready(resolver, f"{url}/readyz", within_s=30)
        gateways = [FakeGateway(identity, url, key.verify_key) for identity in identities]
        subjects = [issuer.token(f"agent-{number}", [f"staff-{number:02}"]) for number in range(REFERENCES)]
        yield Bench(session, vault.url, token, producer, url, gateways, subjects, [], [])
    finally:
        ticking.cancel()
        await session.close()
        await resolver.stop()
        await producer.stop()


def resolver_process(directory: Path, bootstrap: str, estate: Estate, **more: str) -> tuple[Process, str, SigningKey]:
    """A resolver as a process of its own, not started; where it will answer; its key."""
    key = SigningKey.generate()
    key.save(directory / "resolver.key")
    port = free_port()
    environment = plain_environment(
        KEYFOB_MODE="development",
        KEYFOB_KAFKA_BOOTSTRAP=bootstrap,
        KEYFOB_KAFKA_REPLICATION="1",
        KEYFOB_POLICY_KEY=estate.policy_key.verify_key.to_base64(),
        KEYFOB_CATALOG_KEY=estate.catalog_key.verify_key.to_base64(),
        KEYFOB_RESOLVER_HOST=LOOPBACK,
        KEYFOB_RESOLVER_PORT=str(port),
        KEYFOB_RESOLVER_SIGNING_KEY_FILE=str(directory / "resolver.key"),
        KEYFOB_RESOLVER_CREDENTIALS_DIR=str(directory / "credentials"),
        **more,
    )
    command = (sys.executable, "-m", "services", "serve", "resolver")
    process = Process("resolver", command, env=environment, log=directory / "resolver.log", cwd=ROOT)
    return process, f"http://{LOOPBACK}:{port}", key


async def keep_ticking(estate: Estate, producer: AIOKafkaProducer) -> None:
    """Policy's tick, once a second."""
    while True:
        await publish_all(producer, [estate.tick()])
        await asyncio.sleep(1.0)


async def measured(bench: Bench, rounds: int) -> tuple[Timed, Timed, Timed]:
    """All rounds, the three kinds in turn. One round before them warms up: connections, caches, first signatures."""
    kinds = (
        (Timed("read", [], []), bench.read),
        (Timed("read ∥ ack", [], []), bench.read_and_ack),
        (Timed("resolve", [], []), bench.resolve),
    )
    for number in range(rounds + 1):
        for timed, request in kinds:
            asks = request == bench.resolve
            with bench.prepared_for(SINGLE if asks else 0):
                singles = await one_by_one(request, SINGLE)
            with bench.prepared_for(MANY if asks else 0):
                rate = await crowd(request, MANY)
            if number:
                timed.singles += singles
                timed.rates.append(rate)
    return kinds[0][0], kinds[1][0], kinds[2][0]


async def run(rounds: int = ROUNDS) -> dict[str, float]:
    """Measure, print the rows, return the figures."""
    async with running() as bench:
        read, floor, resolve = await measured(bench, rounds)
    table = Table("request", "p50 ms", "p99 ms", "a second at 64", title=f"{REFERENCES} references, none joined")
    for timed in (read, floor, resolve):
        table.add_row(timed.name, f"{timed.p50_ms:.2f}", f"{timed.p99_ms:.2f}", f"{timed.rate:,.0f}")
    Console().print(table)
    return {
        "read_p50_ms": read.p50_ms,
        "resolve_floor_p50_ms": floor.p50_ms,
        "resolve_p50_ms": resolve.p50_ms,
        "read_throughput_c64": read.rate,
        "resolve_throughput_c64": resolve.rate,
        "resolve_ratio_p50": resolve.p50_ms / read.p50_ms,
        "resolve_floor_ratio_p50": resolve.p50_ms / floor.p50_ms,
        "resolve_ratio_throughput_c64": resolve.rate / read.rate,
        "resolve_floor_ratio_throughput_c64": resolve.rate / floor.rate,
    }
