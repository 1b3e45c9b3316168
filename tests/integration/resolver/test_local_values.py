"""Values that people enter: sealed, resolved for exactly whom they are for, and shown to nobody."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from sqlalchemy import text

from services.dev.platform import Platform
from services.resolver.app import Replica, replica
from services.resolver.custody.recovering import books_for
from services.resolver.custody.standing import SCHEMA
from services.resolver.custody.transactions import Books
from services.resolver.domain.local_values import Owner, Slot
from shared import topics
from shared.bus.cloudevents import decode
from shared.crypto.signing import SigningKey
from shared.custody import Kek, save_new_kek
from shared.custody.directory import key_path
from shared.events.custody import KeyChange, ValueAction, ValueChange
from shared.events.policy import LocalOwner, LocalValueOrigin
from tests.fakes.asgi import Reply, call
from tests.fakes.gateway import FakeGateway, values
from tests.integration.resolver.conftest import World, forget_custody, secret_of
from tests.integration.resolver.topics import reading, streams
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)

SERVER = "ward-db"
FIELD = "DB_URL"
CANARY = secrets.token_hex(12)
ODD = b"\xff\x00 line\nbreak ${HOME} {{x}} \\ud800 \xf0\x9f\x97\x9d " + CANARY.encode()
"""No text in any encoding, and half a surrogate pair as JSON spells it."""


@dataclass(slots=True)
class Ward:
    """A replica that keeps values, and people."""

    world: World
    replica: Replica
    gateway: FakeGateway
    books: Books
    dsn: str = field(repr=False)

    async def send(self, method: str, token: str, *, body: bytes = b"", kind: str = "", **query: str) -> Reply:
        headers = [("Authorization", f"Bearer {token}")]
        if method == "PUT":
            headers.append(("Content-Type", kind or "application/octet-stream"))
        return await call(self.replica.app, method, f"/v1/values?{urlencode(query)}", headers=headers, body=body)

    async def enter(self, token: str, value: bytes, **query: str) -> Reply:
        return await self.send("PUT", token, body=value, **({"server": SERVER, "field": FIELD} | query))

    async def delete(self, token: str, **query: str) -> Reply:
        return await self.send("DELETE", token, **({"server": SERVER, "field": FIELD} | query))

    async def listed(self, token: str, **query: str) -> list[dict[str, Any]]:
        reply = await self.send("GET", token, **query)
        assert reply.status == 200, reply.body
        return list(json.loads(reply.body)["items"])

    def person(self, name: str, hospital: str = "hospital-a") -> str:
        return self.world.token(hospital, name)

    @property
    def admin(self) -> str:
        return self.world.issuer.token("ada", ["keyfob-admins"])

    async def sql(self, statement: str, **parameters: Any) -> list[Any]:
        async with self.books.engine.begin() as connection:
            found = await connection.execute(text(statement), parameters)
            return [tuple(row) for row in found] if found.returns_rows else []

    async def changes(self, value_id: str) -> list[ValueChange]:
        async with reading(self.world.kafka, topics.CUSTODY_CHANGES) as reader:
            told = [message for message in await reader.all() if message.type != KeyChange.TYPE]
        return [one for message in told if (one := decode(message, ValueChange)).value_id == value_id]

    async def reasons(self) -> list[tuple[str, str]]:
        """(phase, reason) of what this replica recorded, in order."""
        async with reading(self.world.kafka, topics.ACCESS) as access:
            found = streams(await access.all())
        own = [told for stream, told in found.items() if stream.startswith("access/resolver-ward/")]
        return [(record.phase, record.reason) for told in own for record in told]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ward(world: World, platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ward]:
    """In hospital-a each person brings a value, in hospital-b the profile has one; DB_URL of a server of their own."""
    await forget_custody(world.kafka)
    name = f"ward_{secrets.token_hex(4)}"
    await platform.postgres.create_database(name, owner=name, password=secrets.token_urlsafe(16))
    await platform.postgres.execute(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {name}", database=name)
    dsn = platform.postgres.dsn(name, name)
    keys: Path = tmp_path_factory.mktemp("keys")
    kek = Kek.generate()
    save_new_kek(key_path(keys, kek.key_id), kek)
    world.estate.server(SERVER)
    for hospital, owner in (("hospital-a", LocalOwner.SUBJECT), ("hospital-b", LocalOwner.PROFILE)):
        world.estate.binding_to(hospital, LocalValueOrigin(owner=owner), server=SERVER)
    own = world.settings.resolver.model_copy(
        update={
            "replica_id": "resolver-ward",
            "keys_dir": keys,
            "database_url": dsn.replace("postgresql://", "postgresql+asyncpg://"),
        }
    )
    async with replica(replace(world.settings, resolver=own)) as running, running.lifespan():
        key = SigningKey.load(own.signing_key_file).verify_key
        gateway = FakeGateway(world.gateway.identity, world.gateway.audience, key, running.app)
        floor = await world.tell()
        await until(lambda: running.knowledge.snapshot().floor.covers(floor), within=15)
        await until(lambda: running.knowledge.stale() is None, within=30)
        made = Ward(world, running, gateway, books_for(own), dsn)
        yield made
        await made.books.engine.dispose()
    await platform.postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def own_slot(name: str, world: World) -> Slot:
    (idp,) = world.replica.knowledge.snapshot().policy.idps.values()
    return Slot(Owner(LocalOwner.SUBJECT, name, idp.id), f"server/{SERVER}", FIELD)


async def test_a_persons_value_arrives_byte_for_byte_and_only_for_that_person(ward: Ward) -> None:
    alice, bob = ward.person("alice"), ward.person("bob")
    reply = await ward.enter(alice, ODD)
    assert (reply.status, json.loads(reply.body)["action"]) == (200, "set")
    answer = await ward.gateway.resolve(alice, SERVER)
    assert values(answer) == {FIELD: ODD}
    (lease,) = [one.lease for one in answer.fields]
    slot = own_slot("alice", ward.world)
    assert (lease.reference_id, lease.version) == (slot.id, "1")
    assert slot.id in lease.rests_on
    refused = await ward.gateway.ask(bob, SERVER)
    assert refused.status == 503
    assert "keyfob value set" in json.loads(refused.body)["detail"]

    async def recorded() -> bool:
        return ("abandoned", "local-value-missing") in await ward.reasons()

    await until(recorded, within=10)
    # Another reference of the same gateway is none of custody's business.
    assert values(await ward.gateway.resolve(ward.person("alice"))) == {"DB_URL": secret_of("hospital-a").encode()}


async def test_the_largest_value_arrives_and_a_larger_one_is_refused(ward: Ward) -> None:
    token, largest = ward.person("largest"), secrets.token_bytes(64 * 1024)
    assert (await ward.enter(token, largest)).status == 200
    assert values(await ward.gateway.resolve(token, SERVER)) == {FIELD: largest}
    assert (await ward.enter(token, largest + b"x")).status == 413
    assert values(await ward.gateway.resolve(token, SERVER)) == {FIELD: largest}


async def test_a_replaced_value_has_a_higher_version_and_says_so(ward: Ward) -> None:
    token, slot = ward.person("carol"), own_slot("carol", ward.world)
    for number in range(3):
        await ward.enter(token, b"value %d" % number)
    answer = await ward.gateway.resolve(token, SERVER)
    assert (values(answer)[FIELD], answer.fields[0].lease.version) == (b"value 2", "3")
    assert (await ward.delete(token)).status == 200
    assert (await ward.gateway.ask(token, SERVER)).status == 503
    assert (await ward.delete(token)).status == 404
    await ward.enter(token, b"again")
    assert (await ward.gateway.resolve(token, SERVER)).fields[0].lease.version == "5"

    async def all_said() -> bool:
        return len(await ward.changes(slot.id)) == 5

    await until(all_said, within=15)
    told = await ward.changes(slot.id)
    kinds = [ValueAction.SET, ValueAction.REPLACED, ValueAction.REPLACED, ValueAction.DELETED, ValueAction.SET]
    assert [(one.action, one.version) for one in told] == list(zip(kinds, range(1, 6), strict=True))
    assert {(one.owner, one.actor.subject, one.server_name) for one in told} == {("carol", "carol", SERVER)}


async def test_a_deleted_value_leaves_nothing_to_open_in_the_database(ward: Ward) -> None:
    token = ward.person("dora")
    await ward.enter(token, b"to be deleted")
    await ward.delete(token)
    rows = await ward.sql(
        "SELECT sealed, wrap, kek_id, version FROM local_values WHERE id = :id", id=own_slot("dora", ward.world).id
    )
    assert rows == [(None, None, None, 2)]


async def test_a_profiles_value_is_the_administrators_to_enter_and_everybodys_in_it_to_use(ward: Ward) -> None:
    nurse = ward.person("nora", "hospital-b")
    assert (await ward.enter(nurse, b"mine?", profile="hospital-b")).status == 403
    assert (await ward.enter(nurse, b"mine?")).status == 404
    assert (await ward.enter(ward.admin, b"of the ward", profile="hospital-b")).status == 200
    assert values(await ward.gateway.resolve(nurse, SERVER)) == {FIELD: b"of the ward"}
    assert values(await ward.gateway.resolve(ward.person("nils", "hospital-b"), SERVER)) == {FIELD: b"of the ward"}
    (seen,) = await ward.listed(nurse)
    assert (seen["server"], seen["field"], seen["profile"]) == (SERVER, FIELD, "hospital-b")
    assert [one["field"] for one in await ward.listed(ward.admin, profile="hospital-b")] == [FIELD]
    assert (await ward.delete(nurse, profile="hospital-b")).status == 403
    assert (await ward.delete(ward.admin, profile="hospital-b")).status == 200
    assert (await ward.gateway.ask(nurse, SERVER)).status == 503


async def test_what_is_listed_is_name_age_and_last_use_and_nothing_else(ward: Ward) -> None:
    token = ward.person("erin")
    await ward.enter(token, ODD)
    (before,) = await ward.listed(token)
    assert before.keys() == {"server", "field", "profile", "set_at", "last_used_at"}
    assert before["last_used_at"] is None
    await ward.gateway.resolve(token, SERVER)

    async def used() -> bool:
        (now,) = await ward.listed(token)
        return now["last_used_at"] is not None

    await until(used, within=10)
    assert await ward.listed(ward.person("somebody-else")) == []


@pytest.mark.parametrize(
    ("server", "field_name"), [(SERVER, "OTHER"), ("patients-db", FIELD), ("nowhere", FIELD), ("", FIELD)]
)
async def test_nothing_can_be_kept_where_policy_does_not_say_so(ward: Ward, server: str, field_name: str) -> None:
    reply = await ward.enter(ward.person("frank"), b"x", server=server, field=field_name)
    assert reply.status == (400 if server == "" else 404)
    absent = await ward.enter(ward.person("frank"), b"x", server="never-existed", field="NEITHER")
    assert reply.body == absent.body or server == ""
    assert await ward.listed(ward.person("frank")) == []


async def test_strangers_and_odd_requests_are_refused(ward: Ward) -> None:
    token = ward.person("grace")
    nobody = await call(ward.replica.app, "GET", "/v1/values")
    forged = await ward.enter("not.a.token", b"x")
    empty = await ward.enter(token, b"")
    as_json = await ward.send("PUT", token, body=b'"x"', kind="application/json", server=SERVER, field=FIELD)
    unbound = await ward.enter(ward.person("hugo", "hospital-z"), b"x")
    assert [one.status for one in (nobody, forged, empty, as_json, unbound)] == [401, 401, 400, 400, 404]
    assert (await ward.enter(ward.admin, b"x", profile="no-such-profile")).status == 404
    assert await ward.listed(token) == []


async def test_a_row_put_in_the_place_of_another_does_not_open(ward: Ward) -> None:
    ivy, mallory = ward.person("ivy"), ward.person("mallory")
    await ward.enter(ivy, b"ivy's own")
    await ward.enter(mallory, b"mallory's")
    ids = {name: own_slot(name, ward.world).id for name in ("ivy", "mallory")}
    await ward.sql(
        "UPDATE local_values AS kept SET sealed = other.sealed, wrap = other.wrap FROM local_values AS other"
        " WHERE kept.id = :to AND other.id = :of",
        to=ids["mallory"],
        of=ids["ivy"],
    )
    assert (await ward.gateway.ask(mallory, SERVER)).status == 503

    async def recorded() -> bool:
        return ("abandoned", "local-value-damaged") in await ward.reasons()

    await until(recorded, within=10)
    assert values(await ward.gateway.resolve(ivy, SERVER)) == {FIELD: b"ivy's own"}
    await ward.enter(mallory, b"entered again")
    assert values(await ward.gateway.resolve(mallory, SERVER)) == {FIELD: b"entered again"}


async def test_two_who_enter_at_the_same_time_leave_one_whole_value(ward: Ward) -> None:
    token = ward.person("jo")
    replies = await asyncio.gather(*(ward.enter(token, b"value %d" % number) for number in range(10)))
    assert {one.status for one in replies} == {200}
    answer = await ward.gateway.resolve(token, SERVER)
    assert values(answer)[FIELD].startswith(b"value ")
    assert answer.fields[0].lease.version == "10"


async def test_no_value_is_in_the_database_or_on_any_topic(ward: Ward) -> None:
    token = ward.person("kim")
    await ward.enter(token, ODD)
    await ward.gateway.resolve(token, SERVER)
    needles = [CANARY.encode(), CANARY.encode().hex().encode()]
    dumped = await ward.sql(
        "SELECT string_agg(t::text, ' ') FROM (SELECT * FROM local_values) t"
        " UNION ALL SELECT string_agg(t::text, ' ') FROM (SELECT * FROM outbox) t"
    )
    database = " ".join(str(row[0]) for row in dumped).encode()
    # The search itself works: what must be there is found.
    assert own_slot("kim", ward.world).id.encode() in database
    assert not any(needle in database for needle in needles)
    for topic in (topics.ACCESS, topics.CUSTODY_CHANGES):
        async with reading(ward.world.kafka, topic) as reader:
            said = b" ".join(message.value for message in await reader.all())
        assert said
        assert not any(needle in said for needle in needles)
