"""The development issuer: real tokens by direct signing and over HTTP, and a refusal to serve production."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import KeySet

from services.dev.platform import DevIssuer, Supervisor, plain_environment

ROOT = Path(__file__).resolve().parents[3]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def issuer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DevIssuer]:
    directory = tmp_path_factory.mktemp("issuer")
    made = DevIssuer(directory / "state")
    async with Supervisor() as supervisor:
        await supervisor.start(made.process(log=directory / "issuer.log"), ready=made.jwks_uri)
        yield made


async def ask(issuer: DevIssuer, form: dict[str, str], headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(issuer.token_endpoint, data=form, headers=headers) as answer,
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


async def published_keys(issuer: DevIssuer) -> KeySet:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{issuer.url}/.well-known/openid-configuration") as answer:
            discovery = await answer.json()
        assert discovery["issuer"] == issuer.url
        async with session.get(discovery["jwks_uri"]) as answer:
            document = await answer.json()
    assert all("d" not in key for key in document["keys"])
    return KeySet.import_key_set(document)


async def test_a_token_signed_directly_verifies_with_the_published_keys(issuer: DevIssuer) -> None:
    token = jwt.decode(issuer.token("alice", ["ward-1"], ttl_s=60), await published_keys(issuer), algorithms=["ES256"])
    claims = token.claims
    assert (claims["iss"], claims["aud"], claims["sub"]) == (issuer.url, "keyfob", "alice")
    assert claims["groups"] == ["ward-1"]
    assert claims["exp"] - claims["iat"] == 60
    assert claims["jti"]
    assert token.header["kid"]


async def test_tests_can_ask_for_other_audiences_and_claims(issuer: DevIssuer) -> None:
    text = issuer.token("alice", [], ttl_s=-5, audience="elsewhere", nbf=1)
    claims = jwt.decode(text, await published_keys(issuer), algorithms=["ES256"]).claims
    assert claims["aud"] == "elsewhere"
    assert claims["nbf"] == 1
    assert claims["exp"] < claims["iat"]


async def test_a_client_gets_a_token_for_its_secret(issuer: DevIssuer) -> None:
    secret = issuer.add_client("agent-a", groups=["hospital-a"], subject="agent-a@example")
    form = {"grant_type": "client_credentials"}
    basic = {"Authorization": aiohttp.encode_basic_auth("agent-a", secret)}
    in_form = {**form, "client_id": "agent-a", "client_secret": secret}
    for body, headers in ((form, basic), (in_form, None)):
        status, answer = await ask(issuer, body, headers)
        assert (status, answer["token_type"]) == (200, "Bearer")
        claims = jwt.decode(answer["access_token"], await published_keys(issuer), algorithms=["ES256"]).claims
        assert (claims["sub"], claims["groups"]) == ("agent-a@example", ["hospital-a"])


@pytest.mark.parametrize(
    ("form", "headers", "expected"),
    [
        ({"grant_type": "client_credentials"}, {}, (401, "invalid_client")),
        ({"grant_type": "client_credentials", "client_id": "known"}, {}, (401, "invalid_client")),
        ({"grant_type": "client_credentials", "client_id": "x", "client_secret": ""}, {}, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, {"Authorization": "Basic !!!"}, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, {"Authorization": "Bearer x"}, (401, "invalid_client")),
        ({"grant_type": "password"}, {}, (400, "unsupported_grant_type")),
        ({}, {}, (400, "unsupported_grant_type")),
    ],
)
async def test_nobody_else_gets_one(
    issuer: DevIssuer, form: dict[str, str], headers: dict[str, str], expected: tuple[int, str]
) -> None:
    issuer.add_client("known", groups=[])
    status, answer = await ask(issuer, form, headers)
    assert (status, answer["error"]) == expected


async def test_a_new_secret_replaces_the_old_one(issuer: DevIssuer) -> None:
    old = issuer.add_client("agent-b", groups=[])
    new = issuer.add_client("agent-b", groups=[])
    assert issuer.authenticate("agent-b", old) is None
    assert issuer.authenticate("agent-b", new) is not None


def test_its_key_is_private_stays_the_same_and_no_secret_is_stored(tmp_path: Path) -> None:
    first = DevIssuer(tmp_path / "state")
    secret = first.add_client("agent", groups=[])
    assert DevIssuer(tmp_path / "state").jwks() == first.jwks()
    assert DevIssuer(tmp_path / "state").url == first.url
    for name in ("key.json", "clients.json"):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
    assert secret not in (tmp_path / "state" / "clients.json").read_text()


@pytest.mark.parametrize("mode", [{}, {"KEYFOB_MODE": "production"}])
def test_it_refuses_to_serve_production(tmp_path: Path, mode: dict[str, str]) -> None:
    settings = {"KEYFOB_ISSUER_DIRECTORY": str(tmp_path / "state"), "KEYFOB_ISSUER_URL": "http://127.0.0.1:1"}
    command = (sys.executable, "-m", "services.dev.platform.issuer")
    environment = plain_environment(**settings, **mode)
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "KEYFOB_MODE=development only" in ended.stderr
    assert not (tmp_path / "state").exists()
