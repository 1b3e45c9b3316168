"""What every reader of values promises: the same tests for the fake and for a real OpenBao."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from services.dev.platform import METADATA_ONLY, READ_VALUES, Platform
from services.dev.platform.private import write_private
from services.resolver.domain.facts import Evidence, Reference, Source
from services.resolver.sources.credentials import Credentials
from services.resolver.sources.kv2 import Kv2Reader
from services.resolver.sources.port import AnswerUnusable, ReadDenied, ReadValue, ValueMissing, ValueReader
from shared.config import Mode
from shared.egress import Egress
from shared.events.catalog import KvSource, ReferenceState
from tests.fakes.resolving import FakeVault

_PROOF = Evidence("", "", "", b"", None, None)


def reference(path: str, key: str | None = "dsn") -> Reference:
    return Reference(_PROOF, "reference/x", "x", "source/vault", path, key, "1", ReferenceState.ACTIVE)


def source(origin: str, *, name: str = "vault", mount: str = "secret") -> Source:
    return Source(_PROOF, "source/vault", name, KvSource(origin=origin, mount=mount))


class Door(Protocol):
    """A vault from its owner's side, and the reader under test."""

    source: Source

    @property
    def reader(self) -> ValueReader: ...

    async def write(self, path: str, values: Mapping[str, Any]) -> int: ...

    async def delete(self, path: str) -> None: ...

    async def deny(self, path: str) -> None: ...


@dataclass(slots=True)
class FakeDoor:
    reader: FakeVault
    source: Source

    async def write(self, path: str, values: Mapping[str, Any]) -> int:
        return self.reader.write(path, values)

    async def delete(self, path: str) -> None:
        self.reader.delete(path)

    async def deny(self, path: str) -> None:
        self.reader.denied.add(path)


@dataclass(slots=True)
class RealDoor:
    """Paths below a folder of this test's own; its token may read there except what was denied."""

    platform: Platform
    reader: Kv2Reader
    source: Source
    policy: str
    folder: str
    denied: list[str]

    async def write(self, path: str, values: Mapping[str, Any]) -> int:
        return await self.platform.openbao.put(path, values)

    async def delete(self, path: str) -> None:
        await self.platform.openbao.delete(path)

    async def deny(self, path: str) -> None:
        self.denied.append(path)
        rules = [f'path "secret/data/{self.folder}/*" {{ capabilities = ["read"] }}']
        rules += [f'path "secret/data/{one}" {{ capabilities = ["deny"] }}' for one in self.denied]
        await self.platform.openbao.create_policy(self.policy, "\n".join(rules))


@pytest.fixture
def fake_door() -> Door:
    return FakeDoor(FakeVault(), source("http://127.0.0.1:1"))


@pytest.fixture
async def openbao_door(platform: Platform, tmp_path: Path, folder: str) -> AsyncIterator[Door]:
    policy, origin = f"policy-{folder}", platform.openbao.url
    async with Egress(mode=Mode.DEVELOPMENT, timeout_s=2.0) as egress:
        reader = Kv2Reader(egress, Credentials(tmp_path, Mode.DEVELOPMENT), Mode.DEVELOPMENT)
        made = RealDoor(platform, reader, source(origin), policy, folder, [])
        await made.deny(f"{folder}/never")
        token = await platform.openbao.token_for([policy])
        write_private(tmp_path / "vault.json", json.dumps({"origin": origin, "token": token}))
        yield made


@pytest.fixture(params=["fake_door", "openbao_door"])
def door(request: pytest.FixtureRequest) -> Door:
    made: Door = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def folder() -> str:
    return f"values-{secrets.token_hex(4)}"


def text(read: ReadValue) -> str:
    with read.secret.reveal() as view:
        return bytes(view).decode()


async def test_the_value_is_the_one_of_now(door: Door, folder: str) -> None:
    path = f"{folder}/db"
    for number in (1, 2):
        assert await door.write(path, {"dsn": f"value-{number}", "other": "x"}) == number
        read = await door.reader.read(door.source, reference(path))
        assert (text(read), read.version) == (f"value-{number}", str(number))


async def test_a_version_can_be_named(door: Door, folder: str) -> None:
    path = f"{folder}/db"
    for number in (1, 2):
        await door.write(path, {"dsn": f"value-{number}"})
    read = await door.reader.read(door.source, reference(path), version="1")
    assert (text(read), read.version) == ("value-1", "1")


async def test_without_a_key_the_secret_has_exactly_one(door: Door, folder: str) -> None:
    await door.write(f"{folder}/one", {"whatever": "only"})
    assert text(await door.reader.read(door.source, reference(f"{folder}/one", None))) == "only"
    await door.write(f"{folder}/two", {"a": "x", "b": "y"})
    with pytest.raises(AnswerUnusable):
        await door.reader.read(door.source, reference(f"{folder}/two", None))


async def test_what_is_not_there_is_missing(door: Door, folder: str) -> None:
    await door.write(f"{folder}/db", {"dsn": "x"})
    for path, key in ((f"{folder}/nothing", "dsn"), (f"{folder}/db", "nothing"), (f"{folder}/db/deeper", "dsn")):
        with pytest.raises(ValueMissing):
            await door.reader.read(door.source, reference(path, key))
    with pytest.raises(ValueMissing):
        await door.reader.read(door.source, reference(f"{folder}/db"), version="9")


async def test_what_was_deleted_is_missing(door: Door, folder: str) -> None:
    await door.write(f"{folder}/db", {"dsn": "x"})
    await door.delete(f"{folder}/db")
    with pytest.raises(ValueMissing):
        await door.reader.read(door.source, reference(f"{folder}/db"))


async def test_what_is_denied_is_not_called_missing(door: Door, folder: str) -> None:
    await door.write(f"{folder}/db", {"dsn": "x"})
    await door.deny(f"{folder}/db")
    with pytest.raises(ReadDenied):
        await door.reader.read(door.source, reference(f"{folder}/db"))


@pytest.mark.parametrize("value", ["", "ümlaut ✓ \n\t", "a" * 20_000, '{"json": "text"}'])
async def test_text_comes_as_its_utf_8_bytes(door: Door, folder: str, value: str) -> None:
    await door.write(f"{folder}/db", {"dsn": value})
    assert text(await door.reader.read(door.source, reference(f"{folder}/db"))) == value


async def test_what_is_not_text_comes_as_json(door: Door, folder: str) -> None:
    await door.write(f"{folder}/db", {"dsn": {"user": "ana", "port": 5432}})
    assert json.loads(text(await door.reader.read(door.source, reference(f"{folder}/db")))) == {
        "user": "ana",
        "port": 5432,
    }


@pytest.mark.parametrize("name", ["with space", "ü/ö", "per%cent", "que?ry=1&x", "plus+", "semi;colon", "a.b"])
async def test_paths_may_hold_what_urls_would_misread(door: Door, folder: str, name: str) -> None:
    await door.write(f"{folder}/{name}", {"dsn": name})
    assert text(await door.reader.read(door.source, reference(f"{folder}/{name}"))) == name


async def test_errors_hold_neither_path_nor_value(door: Door, folder: str) -> None:
    await door.write(f"{folder}/db", {"dsn": "swordfish"})
    with pytest.raises(ValueMissing) as refused:
        await door.reader.read(door.source, reference(f"{folder}/db", "other-key"))
    told = f"{refused.value!r} {refused.value.detail} {refused.value.__cause__!r}"
    for word in ("swordfish", folder, "other-key"):
        assert word not in told


async def test_the_token_that_sync_has_reads_no_value(platform: Platform, tmp_path: Path, folder: str) -> None:
    await platform.openbao.put(f"{folder}/db", {"dsn": "x"})
    origin = platform.openbao.url
    for policy, readable in ((METADATA_ONLY, False), (READ_VALUES, True)):
        token = await platform.openbao.token_for([policy])
        write_private(tmp_path / f"{policy}.json", json.dumps({"origin": origin, "token": token}))
        async with Egress(mode=Mode.DEVELOPMENT) as egress:
            reader = Kv2Reader(egress, Credentials(tmp_path, Mode.DEVELOPMENT), Mode.DEVELOPMENT)
            asked = reader.read(source(origin, name=policy), reference(f"{folder}/db"))
            if readable:
                assert text(await asked) == "x"
            else:
                with pytest.raises(ReadDenied):
                    await asked


async def test_a_path_never_leads_out_of_its_mount(platform: Platform, tmp_path: Path, folder: str) -> None:
    await platform.openbao.put(f"{folder}/db", {"dsn": "x"})
    origin = platform.openbao.url
    token = await platform.openbao.token_for([READ_VALUES])
    write_private(tmp_path / "vault.json", json.dumps({"origin": origin, "token": token}))
    async with Egress(mode=Mode.DEVELOPMENT) as egress:
        reader = Kv2Reader(egress, Credentials(tmp_path, Mode.DEVELOPMENT), Mode.DEVELOPMENT)
        for path in (f"nowhere/../{folder}/db", f"./{folder}/db", f"{folder}//db", "", "/", f"../data/{folder}/db"):
            with pytest.raises(ValueMissing):
                await reader.read(source(origin), reference(path))
        with pytest.raises(ValueMissing):
            await reader.read(replace(source(origin), place=KvSource(origin=origin, mount="..")), reference("sys"))
