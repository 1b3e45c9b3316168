"""The second listener on a real socket: who gets through the handshake, and how an open connection ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.dev.platform import DevIssuer
from services.dev.platform.ports import LOOPBACK
from services.resolver.https_only import streams
from shared.config import Misconfigured
from shared.crypto.framing import to_base64url
from shared.events.policy import DeliveryProfile, InstanceState
from shared.mutual_tls import MutualListener, MutualTls
from tests.fakes.estate import hospitals
from tests.fakes.https_door import HttpsDoor, heard, https_door
from tests.fakes.pki import DAY, Authority, authority
from tests.fakes.resolving import bench
from tests.waiting import until

KEYS = {"signing_key": "", "sealing_key": "", "sealing_certificate": ""}


@dataclass
class Listening:
    """A door behind a real listener."""

    door: HttpsDoor
    directory: Path
    servers: Authority
    listener: MutualListener

    def client(self, name: str, *, by: Authority | None = None, ends: timedelta = DAY / 2) -> Path:
        """Key and certificate of an instance, in one file; enrolled if the authority is ours."""
        key, instance_id = ec.generate_private_key(ec.SECP256R1()), f"instance/{name}"
        ca = (by or self.door.authority).instance_ca(lifetime=ends)
        certificate = ca.issue(key.public_key(), instance_id=instance_id, now=datetime.now(UTC) - timedelta(hours=1))
        file = self.directory / f"{name}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        kept = to_base64url(certificate.public_bytes(Encoding.DER))
        self.door.bench.estate.instance(name, delivery=DeliveryProfile.HTTPS, certificate=kept, **KEYS)
        self.door.bench.learn()
        return file

    def connect(self, client: Path | None) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.servers.certificate))
        if client is not None:
            context.load_cert_chain(client)
        return http.client.HTTPSConnection(LOOPBACK, self.listener.port, context=context, timeout=5)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.door.bench.token()}"}


@pytest_asyncio.fixture(loop_scope="session")
async def listening(tmp_path: Path) -> AsyncIterator[Listening]:
    resolver = bench(hospitals(), DevIssuer(tmp_path / "issuer", url="https://idp.example"))
    resolver.vault.put("hospital-a/db-dsn", "HOSPITAL-A")
    made = https_door(resolver, tmp_path)
    servers = authority(tmp_path, "server-ca")
    ours = servers.listener()
    tls = MutualTls(
        host=LOOPBACK,
        port=0,
        certificate=ours.certificate,
        key=ours.key,
        client_ca=made.authority.certificate,
        connections=20,
        connections_each=15,
    )
    listener = MutualListener(made.app, tls)
    running = [asyncio.create_task(made.feed.run()), asyncio.create_task(listener.run())]
    await until(lambda: listener.port)
    await heard(made.feed, made.topic.tick())
    yield Listening(made, tmp_path, servers, listener)
    made.feed.close()
    await listener.stop()
    running[0].cancel()
    await asyncio.gather(*running, return_exceptions=True)


def ask(connection: http.client.HTTPSConnection, headers: dict[str, str]) -> tuple[int, Any]:
    connection.request("POST", "/v1/resolve", json.dumps({"server": "patients-db"}), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


async def test_an_enrolled_instance_gets_its_values(listening: Listening) -> None:
    connection = listening.connect(listening.client("one"))
    status, said = await asyncio.to_thread(ask, connection, listening.headers())
    assert (status, said["fields"][0]["name"]) == (200, "DB_URL")
    assert connection.sock.version() == "TLSv1.3"
    connection.close()


def strangers(listening: Listening) -> dict[str, Path | None]:
    foreign = authority(listening.directory, "foreign")
    leaf = listening.servers.listener("as-client")
    both = listening.directory / "as-client-both.pem"
    both.write_bytes(leaf.key.read_bytes() + leaf.certificate.read_bytes())
    return {
        "nobody": None,
        "of another authority": listening.client("foreign-1", by=foreign),
        "of the servers' authority": both,
        "expired": listening.client("expired", ends=timedelta(minutes=30)),
    }


async def test_strangers_do_not_get_through_the_handshake(listening: Listening) -> None:
    for who, file in strangers(listening).items():
        connection = listening.connect(file)
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
            await asyncio.to_thread(ask, connection, listening.headers())
        connection.close()
        assert listening.door.bench.log.entries == [], who


async def test_old_tls_is_not_spoken(listening: Listening) -> None:
    context = ssl.create_default_context(cafile=str(listening.servers.certificate))
    context.load_cert_chain(listening.client("old"))
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    # Or this client's own library refuses before anybody else can.
    context.set_ciphers("ALL:@SECLEVEL=0")
    connection = http.client.HTTPSConnection(LOOPBACK, listening.listener.port, context=context, timeout=5)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(connection.connect)


async def test_an_instance_is_who_its_certificate_says_whatever_it_writes(listening: Listening) -> None:
    connection = listening.connect(listening.client("one"))
    listening.client("two")
    headers = listening.headers() | {"X-Client-Cert": "instance/two", "Keyfob-Assertion": "x", "Host": "two"}
    assert (await asyncio.to_thread(ask, connection, headers))[0] == 200
    assert {entry.instance_id for entry in listening.door.bench.log.entries} == {"instance/one"}
    connection.close()


async def test_two_connections_are_two_peers(listening: Listening) -> None:
    one, two = listening.connect(listening.client("one")), listening.connect(listening.client("two"))
    for _ in range(3):
        for connection in (one, two):
            assert (await asyncio.to_thread(ask, connection, listening.headers()))[0] == 200
    seen = [entry.instance_id for entry in listening.door.bench.log.entries]
    assert seen == ["instance/one", "instance/one", "instance/two", "instance/two"] * 3
    one.close()
    two.close()


async def test_a_connection_that_was_open_before_a_ban_is_refused_after_it(listening: Listening) -> None:
    connection = listening.connect(listening.client("one"))
    assert (await asyncio.to_thread(ask, connection, listening.headers()))[0] == 200
    listening.door.bench.estate.again("instance/one", state=InstanceState.BANNED)
    listening.door.bench.learn()
    assert (await asyncio.to_thread(ask, connection, listening.headers()))[0] == 401
    connection.close()


async def test_a_banned_instances_open_stream_ends_within_a_second(listening: Listening) -> None:
    connection = listening.connect(listening.client("one"))
    await asyncio.to_thread(connection.request, "GET", "/v1/notices")
    answer = await asyncio.to_thread(connection.getresponse)
    assert (answer.status, await asyncio.to_thread(answer.readline)) == (200, b"id: 0\n")
    listening.door.bench.estate.again("instance/one", state=InstanceState.BANNED)
    listening.door.bench.learn()
    began = time.monotonic()
    rest = await asyncio.to_thread(answer.read)
    assert time.monotonic() - began < 1
    assert rest.count(b"event:") == 1
    assert listening.door.streams.count("instance/one") == 0
    connection.close()


async def test_a_stream_goes_on_over_a_new_connection(listening: Listening) -> None:
    client, topic = listening.client("one"), listening.door.topic
    place, notice = 0, topic.revoke("grant/1")
    connection = listening.connect(client)
    await asyncio.to_thread(connection.request, "GET", "/v1/notices", headers={"Last-Event-ID": str(place)})
    answer = await asyncio.to_thread(connection.getresponse)
    assert await asyncio.to_thread(answer.readline) == b"id: %d\n" % notice
    connection.close()


async def test_a_reader_that_stops_reading_is_cut(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_WITHIN_S", 0.2)
    connection = listening.connect(listening.client("one"))
    await asyncio.to_thread(connection.request, "GET", "/v1/notices")
    await asyncio.to_thread(connection.getresponse)
    await until(lambda: listening.door.streams.count("instance/one") == 1)
    # More than buffers on the way hold.
    ended = [f"grant/{'x' * 150}-{index}" for index in range(2000)]

    def flood() -> bool:
        listening.door.topic.revoke(*ended)
        return listening.door.streams.count("instance/one") == 0

    await until(flood, within=10, every=0.01)
    connection.close()


async def test_one_peer_does_not_take_everybodys_connections(listening: Listening) -> None:
    greedy, other = listening.client("greedy"), listening.connect(listening.client("other"))
    kept = [listening.connect(greedy) for _ in range(16)]
    for connection in kept:
        await asyncio.to_thread(connection.connect)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        await asyncio.to_thread(ask, kept[-1], listening.headers())
    assert (await asyncio.to_thread(ask, other, listening.headers()))[0] == 200
    # One that it closes is free again.
    kept[0].close()
    again = listening.connect(greedy)
    assert (await asyncio.to_thread(_patiently, again, listening))[0] == 200
    for connection in (*kept, other, again):
        connection.close()


def _patiently(connection: http.client.HTTPSConnection, listening: Listening) -> tuple[int, Any]:
    for _ in range(50):
        try:
            return ask(connection, listening.headers())
        except (ssl.SSLError, ConnectionError, http.client.BadStatusLine):
            connection.close()
            time.sleep(0.02)
    raise AssertionError("its place was never freed")


async def test_connections_are_bounded(listening: Listening) -> None:
    clients = [listening.client("one"), listening.client("two")]
    kept = [listening.connect(clients[index % 2]) for index in range(20)]
    for connection in kept:
        await asyncio.to_thread(connection.connect)
    further = listening.connect(clients[0])
    await asyncio.to_thread(further.request, "POST", "/v1/resolve", "{}", listening.headers())
    assert (await asyncio.to_thread(further.getresponse)).status == 503
    for connection in (*kept, further):
        connection.close()


async def test_files_that_do_not_work_are_one_sentence(listening: Listening) -> None:
    ours, absent = listening.servers.listener(), listening.directory / "absent.pem"
    for certificate, key, client_ca in (
        (absent, ours.key, ours.certificate),
        (ours.certificate, listening.servers.key, ours.certificate),
        (ours.certificate, ours.key, absent),
        (ours.certificate, ours.key, ours.key),
    ):
        tls = MutualTls(host=LOOPBACK, port=0, certificate=certificate, key=key, client_ca=client_ca, connections=1)
        with pytest.raises(Misconfigured, match="can't be set up"):
            MutualListener(listening.door.app, tls)
