"""One mapping, several places: each gateway gives a server what its own process was started with."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import httpx2
import pytest_asyncio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from services.gateway.app import Gateway
from services.gateway.client.environment import Environment
from services.resolver.domain.decision import Reason
from shared import topics
from shared.bus.cloudevents import decode, received
from shared.events.access import AccessRecord, Phase
from shared.events.notices import Notice, NoticeKind
from shared.events.policy import EnvironmentOrigin, ServerRecord
from tests.fakes.gateway import FakeGateway
from tests.integration.gateway.conftest import PATIENTS, SERVER, Wing, identity_of, opened
from tests.integration.gateway.test_gateway import patients
from tests.waiting import until

HERE = "alchemy-here"
VARIABLE = "HOSPITAL_DB_URL"


@dataclass(frozen=True, slots=True)
class Place:
    """One deployment."""

    gateway: Gateway
    url: str
    token: str
    asking: FakeGateway
    """The same instance without a gateway's patience: what one resolver answers to one question."""

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(f"{self.url}/mcp/{HERE}", http_client=http)) as client,
        ):
            yield client

    async def status(self) -> int:
        """What an agent's first request is answered."""
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            answer = await http.post(f"{self.url}/mcp/{HERE}", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        return answer.status_code


def dsn(wing: Wing, hospital: str) -> str:
    database = wing.hospitals[hospital].database
    return wing.platform.postgres.dsn(database, database).replace("postgresql://", "postgresql+psycopg2://", 1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mapped(wing: Wing) -> Wing:
    """A server whose URL comes from the environment of instances labelled `env=prod`; bound once, for everywhere."""
    estate = wing.world.estate
    defined = estate.live[f"server/{SERVER}"][0]
    assert isinstance(defined, ServerRecord)
    estate.server(HERE, defined.definition)
    estate.variable(VARIABLE)
    estate.binding_to("hospital-a", EnvironmentOrigin(variable=VARIABLE, labels={"env": "prod"}), server=HERE)
    await wing.world.tell()
    return wing


@contextlib.asynccontextmanager
async def place(
    wing: Wing, name: str, names: str = VARIABLE, *, env: str = "prod", **variables: str
) -> AsyncIterator[Place]:
    """A gateway with a label and an environment of its own."""
    known = wing.world.estate.instance(name, labels={"env": env})
    await wing.world.tell()
    environment = Environment.take(names, {key.encode(): value.encode() for key, value in variables.items()})
    async with opened(wing.world, identity_of(wing.world, known), environment) as (gateway, url):
        await until(lambda: gateway.instance.not_ready() is None, within=30)
        asking = replace(wing.world.gateway, identity=known)
        yield Place(gateway, url, wing.world.token("hospital-a"), asking)


async def recorded(wing: Wing, instance: str) -> list[AccessRecord]:
    """What the resolver recorded about an instance by now."""
    consumer = wing.world.kafka.consumer(topics.ACCESS, auto_offset_reset="earliest")
    await consumer.start()
    try:
        found = await consumer.getmany(timeout_ms=5000, max_records=10_000)
    finally:
        await consumer.stop()
    records = [decode(received(one), AccessRecord) for batch in found.values() for one in batch]
    return [one for one in records if one.instance_id == f"instance/{instance}"]


async def test_the_same_mapping_gives_each_place_its_own_database(mapped: Wing) -> None:
    async with (
        place(mapped, "north", HOSPITAL_DB_URL=dsn(mapped, "hospital-a")) as north,
        place(mapped, "south", HOSPITAL_DB_URL=dsn(mapped, "hospital-b")) as south,
        north.connect() as one,
        south.connect() as two,
    ):
        assert await patients(one) == PATIENTS["hospital-a"]
        assert await patients(two) == PATIENTS["hospital-b"]
    for name in ("north", "south"):
        first, second = (await recorded(mapped, name))[:2]
        assert (first.phase, second.phase) == (Phase.AUTHORISED, Phase.RELEASED)
        assert (first.items[0].reference_name, first.items[0].source_id) == (VARIABLE, f"instance/{name}")


async def test_a_place_with_another_label_gets_nothing_and_the_record_says_why(mapped: Wing) -> None:
    async with place(mapped, "try-out", env="test", HOSPITAL_DB_URL=dsn(mapped, "hospital-a")) as other:
        assert await other.status() == 404
    assert (await recorded(mapped, "try-out"))[0].reason == Reason.INSTANCE_LABELS


async def test_what_a_deployment_does_not_allow_is_not_read_whatever_is_bound(mapped: Wing) -> None:
    async with place(mapped, "strict", "SOMETHING_ELSE", HOSPITAL_DB_URL=dsn(mapped, "hospital-a")) as strict:
        assert await strict.status() == 503
        assert strict.gateway.instance.ledger.progress().open_leases == 0


async def test_a_new_value_is_there_when_the_process_is_started_with_it(mapped: Wing) -> None:
    for name, hospital in (("before", "hospital-a"), ("after", "hospital-b")):
        async with place(mapped, name, HOSPITAL_DB_URL=dsn(mapped, hospital)) as started, started.connect() as client:
            assert await patients(client) == PATIENTS[hospital]


async def test_a_variable_that_is_taken_back_ends_what_was_given_from_it(mapped: Wing) -> None:
    async with place(mapped, "leaving", HOSPITAL_DB_URL=dsn(mapped, "hospital-a")) as leaving:
        async with leaving.connect() as client:
            assert await patients(client) == PATIENTS["hospital-a"]
            mapped.world.estate.end(f"variable/{VARIABLE}")
            seq = mapped.world.estate.seqs[topics.POLICY]
            await mapped.world.tell()
            await mapped.say(
                Notice(
                    id="notice/variable",
                    kind=NoticeKind.REVOCATION,
                    cause_id="change/variable",
                    ended=(f"variable/{VARIABLE}",),
                    policy_seq=seq,
                    at=datetime.now(UTC),
                )
            )
            await until(lambda: leaving.gateway.instance.ledger.progress().open_leases == 0, within=20)
        assert await leaving.status() == 404
