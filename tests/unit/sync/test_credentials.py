"""Credentials are files, bound to the origin that they were entered for, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.sync.sources.credentials import CredentialFiles, NoCredential
from shared.config import Mode
from shared.egress import Origin
from tests.fakes.loopback import write_secret

ORIGIN = Origin("https", "vault", 8200)
TOKEN = "s.hunter2"


def files(tmp_path: Path, content: str, mode: int = 0o600) -> CredentialFiles:
    write_secret(tmp_path / "main.json", content)
    (tmp_path / "main.json").chmod(mode)
    return CredentialFiles(tmp_path, mode=Mode.PRODUCTION)


def test_a_credential_fits_its_origin_however_that_is_spelt(tmp_path: Path) -> None:
    credential = files(tmp_path, json.dumps({"origin": "https://VAULT:8200/", "token": TOKEN})).get("main", ORIGIN)
    assert credential.token == TOKEN
    assert TOKEN not in repr(credential)


@pytest.mark.parametrize("origin", ["https://vault", "https://vault:8201", "https://evil:8200"])
def test_a_credential_is_never_sent_to_another_origin(tmp_path: Path, origin: str) -> None:
    known = files(tmp_path, json.dumps({"origin": origin, "token": TOKEN}))
    with pytest.raises(NoCredential, match="another origin"):
        known.get("main", ORIGIN)


@pytest.mark.parametrize(
    "content",
    [
        "",
        TOKEN,
        "[]",
        "{}",
        '{"token": "s.hunter2"}',
        '{"origin": "https://vault:8200"}',
        '{"origin": "https://vault:8200", "token": ""}',
        '{"origin": "https://vault:8200", "token": ["s.hunter2"]}',
        '{"origin": "https://vault:8200", "token": "s.hunter2\\r\\nX-Evil: 1"}',
        '{"origin": "http://vault:8200", "token": "s.hunter2"}',
        '{"origin": 7, "token": "s.hunter2"}',
    ],
)
def test_a_file_that_is_not_one_is_refused_without_a_word_of_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(NoCredential) as caught:
        files(tmp_path, content).get("main", ORIGIN)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    known = files(tmp_path, json.dumps({"origin": str(ORIGIN), "token": TOKEN}), mode=0o640)
    with pytest.raises(NoCredential, match="chmod 600"):
        known.get("main", ORIGIN)


def test_a_replaced_file_counts_at_once(tmp_path: Path) -> None:
    known = files(tmp_path, json.dumps({"origin": str(ORIGIN), "token": TOKEN}))
    known.get("main", ORIGIN)
    draft = tmp_path / "draft"
    write_secret(draft, json.dumps({"origin": str(ORIGIN), "token": "s.renewed"}))
    draft.replace(tmp_path / "main.json")
    assert known.get("main", ORIGIN).token == "s.renewed"
    (tmp_path / "main.json").unlink()
    with pytest.raises(NoCredential, match=r"main\.json"):
        known.get("main", ORIGIN)
