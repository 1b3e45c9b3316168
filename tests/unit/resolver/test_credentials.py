"""A credential is a file for one origin, which nobody else may read; anything else is no credential."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.dev.platform.private import write_private
from services.resolver.sources.credentials import LOOK_AGAIN_S, Credentials
from services.resolver.sources.port import ReadDenied
from shared.config import Mode
from shared.egress import Origin
from tests.fakes.clock import FakeClock

VAULT = Origin("https", "vault.example", 8200)


def write(
    directory: Path, name: str = "vault", *, origin: str = "https://vault.example:8200", token: str = "t"
) -> None:
    write_private(directory / f"{name}.json", json.dumps({"origin": origin, "token": token}))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def credentials(tmp_path: Path, clock: FakeClock) -> Credentials:
    return Credentials(tmp_path, Mode.PRODUCTION, clock)


def test_a_credential_is_for_its_origin(tmp_path: Path, credentials: Credentials) -> None:
    write(tmp_path, token="the-token")
    assert credentials.token("vault", VAULT) == "the-token"
    for other in (
        Origin("http", "vault.example", 8200),
        Origin("https", "vault.example", 8201),
        Origin("https", "evil.example", 8200),
    ):
        with pytest.raises(ReadDenied):
            credentials.token("vault", other)


def test_spellings_of_one_origin_are_one(tmp_path: Path, credentials: Credentials) -> None:
    write(tmp_path, origin="https://VAULT.example:8200/")
    assert credentials.token("vault", VAULT) == "t"


@pytest.mark.parametrize("name", ["../vault", "a/b", "..", ".hidden", "", "x" * 200, "ü", "a\x00b"])
def test_a_name_never_leads_out_of_the_directory(tmp_path: Path, credentials: Credentials, name: str) -> None:
    write(tmp_path)
    with pytest.raises(ReadDenied):
        credentials.token(name, VAULT)


def test_a_file_that_others_may_read_is_not_used(tmp_path: Path, credentials: Credentials) -> None:
    write(tmp_path)
    (tmp_path / "vault.json").chmod(0o640)
    with pytest.raises(ReadDenied):
        credentials.token("vault", VAULT)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"origin": 1, "token": "t"}', '{"origin": "not a url", "token": "t"}']
)
def test_a_file_that_is_no_credential_is_none(tmp_path: Path, credentials: Credentials, content: str) -> None:
    write_private(tmp_path / "vault.json", content)
    with pytest.raises(ReadDenied):
        credentials.token("vault", VAULT)


def test_a_replaced_file_is_noticed(tmp_path: Path, credentials: Credentials, clock: FakeClock) -> None:
    write(tmp_path, token="old")
    assert credentials.token("vault", VAULT) == "old"
    write(tmp_path, token="new")
    clock.advance(LOOK_AGAIN_S + 1)
    assert credentials.token("vault", VAULT) == "new"


def test_a_credential_shows_nowhere(tmp_path: Path, credentials: Credentials) -> None:
    write(tmp_path, token="swordfish")
    credentials.token("vault", VAULT)
    assert "swordfish" not in repr(credentials)
