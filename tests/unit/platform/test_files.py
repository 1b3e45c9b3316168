"""Files that the platform makes once: a kill or a second run at the same moment spoils none of them."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.dev.platform import DevIssuer, Postgres, apache
from services.dev.platform.issuing import Client


class Killed(BaseException):
    """Stands for the end of the process."""


async def test_a_kill_while_the_administrators_password_is_written_leaves_no_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> str:
        raise Killed

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for owner, name in ((secrets, "token_urlsafe"), (Path, "write_text"), (os, "fdopen"), (os, "link")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            patch.setattr(Postgres, "_initialise", killed)
            with pytest.raises(Killed):
                await Postgres(tmp_path).start()
        password = tmp_path / "superuser"
        assert not password.exists() or password.read_text()
        password.unlink(missing_ok=True)


async def test_of_two_fetches_at_once_the_second_takes_what_the_first_has_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = tmp_path / f"{apache.KAFKA}-{apache._LOG4J}"
    rename = Path.rename

    def places() -> list[Path]:
        return list(tmp_path.glob("fetching-*"))

    async def fetch(*_: Any, **__: Any) -> None:
        (place,) = places()
        (place / "lib").mkdir()
        (place / "lib" / "second.jar").touch()

    def rename_too_late(path: Path, target: Path) -> Path:
        ready.mkdir()
        (ready / "first.jar").touch()
        return rename(path, target)

    monkeypatch.setattr(apache, "cache_directory", lambda _: tmp_path)
    monkeypatch.setattr(apache, "run_to_end", fetch)
    monkeypatch.setattr(shutil, "which", lambda _: "mvn")
    monkeypatch.setattr(Path, "rename", rename_too_late)
    assert await apache.fetch_jars(tmp_path / "log") == ready
    assert [file.name for file in ready.iterdir()] == ["first.jar"]
    assert not places()


def test_of_two_clients_that_are_added_at_once_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = DevIssuer._clients

    def read_slowly(issuer: DevIssuer) -> dict[str, Client]:
        known = read(issuer)
        time.sleep(0.05)
        return known

    monkeypatch.setattr(DevIssuer, "_clients", read_slowly)
    with ThreadPoolExecutor() as pool:
        add = [pool.submit(DevIssuer(tmp_path, url="http://x").add_client, name, groups=[]) for name in ("a", "b")]
        secrets_of = {name: adding.result() for name, adding in zip(("a", "b"), add, strict=True)}
    issuer = DevIssuer(tmp_path, url="http://x")
    assert all(issuer.authenticate(name, secret) for name, secret in secrets_of.items())
