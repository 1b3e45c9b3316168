"""Every way in which a secret manager can misbehave over HTTP, and what the reader makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.dev.platform import OpenBao
from services.dev.platform.ports import free_port
from services.dev.platform.private import write_private
from services.resolver.sources.credentials import Credentials
from services.resolver.sources.kv2 import Kv2Reader
from services.resolver.sources.port import (
    AnswerUnusable,
    ReadDenied,
    ReadFailed,
    SourceSealed,
    SourceUnreachable,
    ValueMissing,
)
from shared.config import Mode
from shared.egress import Egress
from tests.contract.sources_values.test_readers import reference, source
from tests.waiting import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TOKEN = "s.swordfish"


@asynccontextmanager
async def reading(directory: Path, *, timeout_s: float = 1.0) -> AsyncIterator[Kv2Reader]:
    async with Egress(mode=Mode.DEVELOPMENT, timeout_s=timeout_s) as egress:
        yield Kv2Reader(egress, Credentials(directory, Mode.DEVELOPMENT), Mode.DEVELOPMENT)


@asynccontextmanager
async def vault(handler: Handler, directory: Path) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(application) as server:
        origin = str(server.make_url("")).rstrip("/")
        write_private(directory / "vault.json", json.dumps({"origin": origin, "token": TOKEN}))
        yield origin


def saying(status: int, body: bytes = b"", **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return handler


def secret(**members: object) -> bytes:
    return json.dumps({"data": {"data": {"dsn": "swordfish"}, "metadata": {"version": 1}} | members}).encode()


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (saying(404, b'{"errors":["swordfish"]}'), ValueMissing),
        (saying(403), ReadDenied),
        (saying(401), ReadDenied),
        (saying(503, b'{"errors":["Vault is sealed"]}'), SourceSealed),
        (saying(500, b"swordfish"), SourceUnreachable),
        (saying(502), SourceUnreachable),
        (saying(429), SourceUnreachable),
        (saying(472), SourceUnreachable),
        (saying(473), SourceUnreachable),
        (saying(204), SourceUnreachable),
        (saying(302, Location="http://127.0.0.1:1/"), SourceUnreachable),
        (saying(200, b""), AnswerUnusable),
        (saying(200, b"swordfish"), AnswerUnusable),
        (saying(200, b"[]"), AnswerUnusable),
        (saying(200, b'{"data":null}'), AnswerUnusable),
        (saying(200, b'{"data":{"data":{"dsn":"swordfish"}}}'), AnswerUnusable),
        (saying(200, secret(metadata={"version": "two"})), AnswerUnusable),
        (saying(200, secret(data=None)), ValueMissing),
        (saying(200, secret(data=[1])), ValueMissing),
        (saying(200, secret(data={"dsn": "\ud800"})), AnswerUnusable),
        (saying(200, b"x" * (2 * 1024 * 1024)), SourceUnreachable),
    ],
)
async def test_a_bad_answer_is_an_error_of_ours_without_the_remote_words(
    tmp_path: Path, handler: Handler, error: type[ReadFailed]
) -> None:
    async with vault(handler, tmp_path) as origin, reading(tmp_path) as reader:
        with pytest.raises(error) as refused:
            await reader.read(source(origin), reference("db"))
    assert "swordfish" not in f"{refused.value!r}{refused.value.detail}{refused.value.__cause__!r}"


async def test_a_source_that_hangs_is_given_up(tmp_path: Path) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with vault(hang, tmp_path) as origin, reading(tmp_path, timeout_s=0.1) as reader:
        with pytest.raises(SourceUnreachable):
            await reader.read(source(origin), reference("db"))


async def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    write_private(tmp_path / "vault.json", json.dumps({"origin": origin, "token": TOKEN}))
    async with reading(tmp_path) as reader:
        with pytest.raises(SourceUnreachable):
            await reader.read(source(origin), reference("db"))


async def test_the_credential_goes_only_to_the_origin_that_it_was_entered_for(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def noting(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("X-Vault-Token"))
        return web.Response(body=secret())

    async with vault(noting, tmp_path) as origin, reading(tmp_path) as reader:
        await reader.read(source(origin), reference("db"))
        for elsewhere in (origin.replace("127.0.0.1", "localhost"), origin + "0", "http://127.0.0.1:1", "ftp://x"):
            with pytest.raises(ReadDenied):
                await reader.read(source(elsewhere), reference("db"))
        with pytest.raises(ReadDenied):
            await reader.read(source(origin, name="another"), reference("db"))
    assert seen == [TOKEN]


async def test_plain_http_is_for_development_only(tmp_path: Path) -> None:
    origin = "http://vault.example:8200"
    write_private(tmp_path / "vault.json", json.dumps({"origin": origin, "token": TOKEN}))
    async with Egress(mode=Mode.PRODUCTION) as egress:
        reader = Kv2Reader(egress, Credentials(tmp_path, Mode.PRODUCTION), Mode.PRODUCTION)
        with pytest.raises(ReadDenied):
            await reader.read(source(origin), reference("db"))


async def test_a_real_one_that_is_killed_and_comes_back_sealed_then_unsealed(
    tmp_path: Path, state_directory: Path
) -> None:
    openbao = OpenBao(state_directory / "openbao")
    await openbao.start()
    try:
        await openbao.put("db", {"dsn": "x"})
        token = await openbao.token_for(["keyfob-read-values"])
        write_private(tmp_path / "vault.json", json.dumps({"origin": openbao.url, "token": token}))
        async with reading(tmp_path) as reader:
            await reader.read(source(openbao.url), reference("db"))
            openbao.kill()
            await until(lambda: openbao.process is not None and not openbao.process.running)
            with pytest.raises(SourceUnreachable):
                await reader.read(source(openbao.url), reference("db"))
            assert openbao.process is not None
            openbao.process.start()
            await until(lambda: is_sealed(reader, openbao.url), within=20)
            await openbao.stop()
            await openbao.start()
            await reader.read(source(openbao.url), reference("db"))
    finally:
        await openbao.stop()


async def is_sealed(reader: Kv2Reader, origin: str) -> bool:
    try:
        await reader.read(source(origin), reference("db"))
    except SourceSealed:
        return True
    except SourceUnreachable:
        return False
    return False
